"""Networks that are given, not trained (``teacher.from``, ``label.teachers``): copied into the run when it begins."""

from collections.abc import Mapping
from typing import Any

from ray_ns.artifacts.member import Member
from ray_ns.artifacts.network import GIVEN, Network
from ray_ns.config import Config, GivenTeacher
from ray_ns.engine import preflight
from ray_ns.engine.run import Run
from ray_ns.engine.stages.calibrate import Calibrate
from ray_ns.engine.stages.label import Label
from ray_ns.engine.stages.network import Copy
from ray_ns.errors import InputError
from ray_ns.export.network import Given, given
from ray_ns.models.files import CONFIG, WEIGHTS, fresh
from ray_ns.models.given import described, network_of, unlike
from ray_ns.models.voting import Voting
from ray_ns.seals import sha256
from ray_ns.store.commit import find_commit, planned_inputs

PLACE = "teachers"
NEW = "Give a new run.dir."
FROM, OTHERS = "teacher.from", "label.teachers"  # the settings


def decide(config: Config, begun: Mapping[str, Any] | None) -> Config:
    """The config with the hash of a teacher that is given, where it names none: that of its weights' file.

    ``begun``: the settings that the run began with, whose hash stays; None where it is new.
    """
    teacher = config.teacher
    if not isinstance(teacher, GivenTeacher) or teacher.sha256 is not None:
        return config
    found = (begun or {}).get("teacher", {}).get("sha256")
    if found is None:
        found = sha256(_read(config, FROM, teacher.place).files[WEIGHTS])
    return config.model_copy(update={"teacher": teacher.model_copy(update={"sha256": found})})


def check(run: Run) -> dict[str, Given]:
    """The networks that are given, by where their copies go in the run.

    ``InputError`` where one is none, has other classes than the run, another hash than the setting, or no weights that
    a student with ``init: teacher`` could begin with.
    """
    found = {_place(number): _given(run, OTHERS, place) for number, place in enumerate(run.config.label.others, 1)}
    if isinstance(run.config.teacher, GivenTeacher):
        found[GIVEN] = _first(run, run.config.teacher)
    return found


def take(run: Run, found: Mapping[str, Given]) -> None:
    """Copy the networks into the run, which then needs their folders no more."""
    for place, it in found.items():
        run.ensure(place, _copy(place, it))


def first(run: Run, teacher: GivenTeacher) -> Network:
    """The copy that is round 0's network. A killed start may have left it to be taken now.

    Raises ``InputError`` where another network lies there now.
    """
    run.called[GIVEN] = teacher.place
    committed = find_commit(run.store, GIVEN)
    if committed is None:
        return run.ensure(GIVEN, _copy(GIVEN, _first(run, teacher)))
    network = Network(committed)
    _refuse_changed(run, FROM, teacher.place, network)
    return network


def members(run: Run) -> tuple[Member, ...]:
    """The copies that label beside the run's own teacher, each with its temperature; as ``first``.

    Raises ``InputError`` where the list is another one than the run began with, or a folder holds another network now.
    """
    others = run.config.label.others
    begun = planned_inputs(run.store, f"{run.place}rounds/1/{Label.name}") is not None
    if find_commit(run.store, _place(len(others) + 1)) is not None:
        raise InputError(f"{OTHERS}: the run began with more than these {len(others)} beside its own. {NEW}")
    return tuple(_member(run, number, place, begun) for number, place in enumerate(others, 1))


def _member(run: Run, number: int, place: str, begun: bool) -> Member:
    run.called[_place(number)] = place
    committed = find_commit(run.store, _place(number))
    if committed is None:
        if begun:
            raise InputError(f"{OTHERS}: {place} is none of those that the run began with. {NEW}")
        network = run.ensure(_place(number), _copy(_place(number), _given(run, OTHERS, place)))
    else:
        network = Network(committed)
        _refuse_changed(run, OTHERS, place, network)
    return Member(network, _voting(run, network))


def _voting(run: Run, network: Network) -> Voting:
    label = run.config.label
    if label.temperature != "auto":
        return Voting.asked(label)
    stage = Calibrate(network)
    return Voting.asked(label, run.ensure(stage.place, stage).temperature)


def _place(number: int) -> str:
    return f"{PLACE}/{number}/{Copy.name}"


def _copy(place: str, it: Given) -> Copy:
    return Copy(it.files, it.data, described(it.files[CONFIG]) if place == GIVEN else {})


def _read(config: Config, setting: str, place: str) -> Given:
    try:
        return given(place, config.cluster.store_seconds)
    except InputError as error:
        raise InputError(f"{setting}: {error}") from error


def _first(run: Run, teacher: GivenTeacher) -> Given:
    """The teacher that is given, fit for the run and its students."""
    found = _given(run, FROM, teacher.place)
    now = sha256(found.files[WEIGHTS])
    if now != teacher.sha256:
        raise InputError(
            f"teacher.sha256: the weights in {teacher.place} have {now}, expected {teacher.sha256}. Give the network "
            f"that was meant, or its hash."
        )
    told = described(found.files[CONFIG])
    run.reporter.note(
        f"{FROM}: {told['model']}, {told['parameters']:,} parameters, {found.data.size} px, is the teacher of round 0. "
        f"Figures on images that it has learned from, whoever trained it, are flattering."
    )
    preflight.check_noised(run.config, FROM, found.data, lambda rates: fresh(found.files[CONFIG], **rates))
    for warning in preflight.smaller(run.config, told["parameters"]):
        run.reporter.warn(warning)
    for number, student in enumerate(run.config.students, 1):
        if student.init != "teacher" or 0 not in run.config.may_teach(number):
            continue
        why = unlike(found.files[CONFIG], student.model, run.config.data)
        if why is not None:
            raise InputError(
                f"student.init: teacher in round {number}: its teacher may be {told['model']} of {teacher.place}, the "
                f"student is {student.model.name} {student.model.args}: {why}. Make them equal, or init: scratch"
            )
    return found


def _given(run: Run, setting: str, place: str) -> Given:
    found = _read(run.config, setting, place)
    try:
        network_of(found.files, place)
    except InputError as error:
        raise InputError(f"{setting}: {error}") from error
    classes, names = run.config.data.classes, run.class_names
    if found.data.classes != classes:
        raise InputError(f"{setting}: {place} has {found.data.classes} classes, data.classes is {classes}.")
    if names is None or found.names is None:
        run.reporter.note(f"{setting}: {place}: its classes are taken by their numbers, which have no names")
    elif found.names != names:
        at = next(number for number in range(classes) if found.names[number] != names[number])
        raise InputError(
            f"{setting}: class {at} of {place} is {found.names[at]!r}, that of the labelled images {names[at]!r}. "
            f"Give a network of the same classes in the same order."
        )
    return found


def _refuse_changed(run: Run, setting: str, place: str, network: Network) -> None:
    """Raise ``InputError`` where the folder holds another network than its copy; one that is gone is not needed."""
    try:
        found = _read(run.config, setting, place)
    except InputError as error:
        run.reporter.note(f"{error} The run goes on with its own copy")
        return
    for name in (WEIGHTS, CONFIG):
        now, then = sha256(found.files[name]), network.files[name].sha256
        if now != then:
            raise InputError(
                f"{setting}: {name} in {place} is another one than when the run began (sha256 {then[:12]}, now "
                f"{now[:12]}). Put that one back, or take the folder away: the run has a copy. Else: {NEW.lower()}"
            )
