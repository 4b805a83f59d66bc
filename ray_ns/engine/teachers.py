"""The networks that label beside the run's own teacher (``label.teachers``): copied into the run when it begins."""

from ray_ns.artifacts.member import Member
from ray_ns.artifacts.network import Network
from ray_ns.engine.run import Run
from ray_ns.engine.stages.calibrate import Calibrate
from ray_ns.engine.stages.label import Label
from ray_ns.engine.stages.network import Copy
from ray_ns.errors import InputError
from ray_ns.export.network import Given, given
from ray_ns.models.files import CONFIG, WEIGHTS
from ray_ns.models.given import network_of
from ray_ns.models.voting import Voting
from ray_ns.seals import sha256
from ray_ns.store.commit import find_commit, planned_inputs

PLACE = "teachers"
NEW = "Give a new run.dir."


def check(run: Run) -> list[Given]:
    """The networks that are given. ``InputError`` where one is none, or has other classes than the run."""
    return [_given(run, place) for place in run.config.label.others]


def take(run: Run, found: list[Given]) -> None:
    """Copy the networks into the run, which then needs their folders no more."""
    for number, it in enumerate(found, 1):
        run.ensure(_place(number), Copy(it.files, it.data))


def members(run: Run) -> tuple[Member, ...]:
    """The copies, each with its temperature. A killed start may have left some to be taken now.

    Raises ``InputError`` where the list is another one than the run began with, or a folder holds another network now.
    """
    others = run.config.label.others
    begun = planned_inputs(run.store, f"{run.place}rounds/1/{Label.name}") is not None
    if find_commit(run.store, _place(len(others) + 1)) is not None:
        raise InputError(f"label.teachers: the run began with more than these {len(others)} beside its own. {NEW}")
    return tuple(_member(run, number, place, begun) for number, place in enumerate(others, 1))


def _member(run: Run, number: int, place: str, begun: bool) -> Member:
    committed = find_commit(run.store, _place(number))
    if committed is None:
        if begun:
            raise InputError(f"label.teachers: {place} is none of those that the run began with. {NEW}")
        found = _given(run, place)
        network = run.ensure(_place(number), Copy(found.files, found.data))
    else:
        network = Network(committed)
        _refuse_changed(run, place, network)
    return Member(network, _voting(run, network))


def _voting(run: Run, network: Network) -> Voting:
    label = run.config.label
    if label.temperature != "auto":
        return Voting.asked(label)
    stage = Calibrate(network)
    return Voting.asked(label, run.ensure(stage.place, stage).temperature)


def _place(number: int) -> str:
    return f"{PLACE}/{number}/{Copy.name}"


def _given(run: Run, place: str) -> Given:
    try:
        found = given(place, run.config.cluster.store_seconds)
        network_of(found.files, place)
    except InputError as error:
        raise InputError(f"label.teachers: {error}") from error
    classes, names = run.config.data.classes, run.class_names
    if found.data.classes != classes:
        raise InputError(f"label.teachers: {place} has {found.data.classes} classes, data.classes is {classes}.")
    if names is None or found.names is None:
        run.reporter.note(f"label.teachers: {place}: its classes are taken by their numbers, which have no names")
    elif found.names != names:
        at = next(number for number in range(classes) if found.names[number] != names[number])
        raise InputError(
            f"label.teachers: class {at} of {place} is {found.names[at]!r}, that of the labelled images {names[at]!r}. "
            f"Give a network of the same classes in the same order."
        )
    return found


def _refuse_changed(run: Run, place: str, network: Network) -> None:
    """Raise ``InputError`` where the folder holds another network than its copy; one that is gone is not needed."""
    try:
        found = given(place, run.config.cluster.store_seconds)
    except InputError as error:
        run.reporter.note(f"label.teachers: {place} cannot be read any more, its copy in the run labels ({error})")
        return
    for name in (WEIGHTS, CONFIG):
        now, then = sha256(found.files[name]), network.files[name].sha256
        if now != then:
            raise InputError(
                f"label.teachers: {name} in {place} is another one than when the run began (sha256 {then[:12]}, now "
                f"{now[:12]}). Put that one back, or take the folder away: the run has a copy. Else: {NEW.lower()}"
            )
