"""Networks that are there, judged on labelled images: each on each suite, and the report of them all.

An evaluation is a run of its own (``store``): begun once, resumed by the same command, verified as any other. Its
stages are ``network``, a copy of each network's two files, ``judge-...``, one per network and suite, and ``report``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray_ns.artifacts.judged import JudgedOn
from ray_ns.artifacts.network import whole
from ray_ns.config import FED, Config, Data, Settings
from ray_ns.config.labelling import OF_A_POOL
from ray_ns.config.prediction import Asked, Evaluated, Evaluation, asked, labelled_by
from ray_ns.corpora import layout as listed
from ray_ns.corpora.corpus import Corpus, Shard, count_per_class
from ray_ns.engine import cards, precision, preflight
from ray_ns.engine.judged import Rival, rivals
from ray_ns.engine.places import check_apart, check_free, check_lasting, note_places
from ray_ns.engine.predict import choose_where, in_this_process
from ray_ns.engine.run import Run
from ray_ns.engine.stages.judge import Judge, check_named, folder_of
from ray_ns.engine.stages.judged_report import JudgedReport
from ray_ns.engine.stages.network import Copy
from ray_ns.errors import InputError
from ray_ns.evaluate import published, real
from ray_ns.evaluate.suites import AMONG, OWN, PUBLISHED, REAL, Suite, among, parse_all
from ray_ns.models.files import CONFIG, WEIGHTS
from ray_ns.models.given import network_of, wordnet_ids
from ray_ns.observe import Mode, Reporter
from ray_ns.seals import digest, sha256
from ray_ns.store import hints, layout
from ray_ns.store.commit import find_commit
from ray_ns.store.lease import Lease
from ray_ns.store.objects import ObjectStore, open_store

ANOTHER = "another -o"
OF_DATA = ("image_column", "label_column", "max_quarantined")
SHOWN = 3  # names at either end of the classes
OF_HARDWARE = ("float32", "bfloat16")  # what ``precision: auto`` may come to
SHARD_ROWS = 10_000  # at most so many images in one view are the unit that is committed


@dataclass(frozen=True)
class Found:
    """What an evaluation came to: ``url``, its directory, and ``report``, JSON values (``stages.judged_report``).

    ``names``: what each suite is called, by the folder of its figures, and the classes, by number.
    """

    url: str
    report: dict[str, Any]
    names: dict[str, Any]


def evaluate(
    place: str,
    on: Sequence[str],
    output: str | None = None,
    networks: Sequence[str] = (),
    overrides: Sequence[str] = (),
    mode: Mode = "auto",
) -> Found:
    """Judge the networks at ``place`` on every suite, or go on with that; a finished evaluation is only read.

    ``place``: a run, or a folder with the two files of a network. ``on``: suites (``evaluate.suites.GRAMMAR``).
    ``output``: its directory; None: in ``RUN.evaluations/``. ``networks``: which of a run (``engine.judged``).
    ``overrides``: ``label.*``, ``cluster.*``, some of ``data.*``.

    Raises ``InputError`` for whatever cannot be judged, before anything is written.
    """
    reporter = Reporter(mode)
    judged = rivals(place, networks)
    suites = parse_all(on, min(it.given.data.size for it in judged), judged[0].given.data.channels)
    suites = [published.found(it) if it.kind == PUBLISHED else it for it in suites]
    wanted = asked(_values(judged[0], suites), overrides, OF_DATA, "an evaluation")
    if not any(it.startswith("label.shard_rows=") for it in overrides):
        label = wanted.label.model_copy(update={"shard_rows": min(wanted.label.shard_rows, SHARD_ROWS)})
        wanted = wanted.model_copy(update={"label": label})
    corpora = _names(suites)
    reassessed = {it.file: real.read(it.file, wanted.data.classes) for it in suites if it.kind == REAL}
    possible = _possible(judged, suites, corpora, wanted, reassessed)
    url = output or _place(place, judged, possible, suites)
    check_lasting({"-o": url} | {f"--on {it}": it for it in corpora if it not in OWN})
    store = open_store(url)
    for source in corpora:
        if source not in OWN:
            check_apart(store.url, source, f"{ANOTHER}, outside of {source}")
    check_free(store, ANOTHER)
    _check_kind(store)
    settings = Settings.of_run(layout.record(store), Evaluated)
    decides = _as_begun(store, settings, possible)
    wanted = wanted.model_copy(update={"data": decides.evaluate.data, "label": decides.evaluate.label})
    layout.check_owner(store, lambda before: settings.differences(before, decides), ANOTHER)
    opened = {name: _corpus(source, judged[0], wanted.data, store, name, reporter) for source, name in corpora.items()}
    with _run(wanted, settings, store, opened, judged[0], reporter) as run:
        suites = [_for_corpus(it, run, corpora) for it in suites]
        if find_commit(store, JudgedReport.name) is None:
            _check(run, judged, suites, corpora, reassessed)
        if layout.record(store) is None:
            seen = {name: [vars(shard) for shard in corpus.shards] for name, corpus in opened.items()}
            classes = layout.Classes(wanted.data.classes, run.class_names)
            layout.begin(store, settings.of(decides), seen, run.lease.check, classes)
        note_places(store, opened)
        rows = _judge(run, judged, suites, corpora, reassessed)
        report = run.ensure(JudgedReport.name, JudgedReport(rows))
        cards.keep(run)
    called = {on.place: suite.name for _, suite, on in rows}
    return Found(store.url, report, {"suites": called, "classes": run.class_names})


def _judge(
    run: Run,
    judged: Sequence[Rival],
    suites: Sequence[Suite],
    corpora: dict[str, str],
    reassessed: Mapping[str, real.Labels],
) -> list[tuple[Rival, Suite, JudgedOn]]:
    """Each network on each suite. ``reassessed``: labels by the files that suites name."""
    # The records of an earlier version do not tell one file of reassessed labels from another.
    folders = [folder_of(it, corpora[it.sources[0]], reassessed.get(it.file)) for it in suites]
    begun = {it for it in layout.stages(run.store) if it.rpartition("/")[2].startswith(f"{Judge.name}-")}
    if not begun <= {rival.place(it) for rival in judged for it in folders}:
        raise InputError(f"{run.store.url} holds an evaluation on other suites than --on names. Give {ANOTHER}.")
    found = []
    here = run.execute is not None
    for rival in judged:
        copy = run.ensure(rival.place(Copy.name), Copy(rival.given.files, rival.given.data))
        run.called[copy.place] = f"{rival.given.place}, {rival.turn}" if rival.turn else rival.given.place
        if here:
            run.execute = in_this_process()  # which holds one network
        for suite in suites:
            names = tuple(corpora[it] for it in suite.sources)
            network = whole(copy, run.config.data) if suite.folders else copy
            stage = Judge(network, suite, names[0], reassessed.get(suite.file), names if suite.folders else ())
            found.append((rival, suite, run.ensure(rival.place(stage.folder), stage)))
    return found


def _for_corpus(suite: Suite, run: Run, corpora: dict[str, str]) -> Suite:
    """The suite with what it takes from the images' labels; ``InputError`` where they are of one class alone."""
    if suite.kind != AMONG:
        return suite
    corpus, classes = run.corpora[corpora[suite.source]], run.config.data.classes
    return among(suite, count_per_class(corpus.labels(classes), classes) > 0)


def _names(suites: Sequence[Suite]) -> dict[str, str]:
    """What each source is called in the evaluation's records, which hold no path of this machine."""
    folders = [it for it in dict.fromkeys(it for suite in suites for it in suite.sources) if it not in OWN]
    return {it.source: it.source for it in suites if it.own} | {it: f"folder-{at}" for at, it in enumerate(folders, 1)}


def _values(first: Rival, suites: Sequence[Suite]) -> dict[str, Any]:
    """Settings by section: how the network is fed and, where it is a run's, how that run labels."""
    data = first.given.data
    fed = {name: getattr(data, name) for name in ("classes", *FED)}
    images = {"labelled": suites[0].source, "pool": suites[0].source, "max_quarantined": 1.0}
    record = None if first.given.run is None else layout.record(first.given.run)
    return {"data": {**fed, **images}, "label": labelled_by(record, OF_A_POOL)}


def _possible(
    judged: Sequence[Rival],
    suites: Sequence[Suite],
    corpora: dict[str, str],
    wanted: Asked,
    reassessed: Mapping[str, real.Labels],
) -> list[Evaluated]:
    """What the record of this command may hold: as it would begin here, then as on other hardware or earlier."""
    here = precision.of_section(wanted.label, bool(wanted.label.gpus_per_actor), None)
    decided = [here.precision, *(OF_HARDWARE if wanted.label.precision == "auto" else ())]
    of = {rival.turn or "network": rival.given.files for rival in judged}
    first = Evaluation(
        weights={name: sha256(files[WEIGHTS]) for name, files in of.items()},
        networks={name: sha256(files[CONFIG]) for name, files in of.items()},
        on=_on(suites, corpora, reassessed),
        data=wanted.data,
        label=wanted.label,
    )
    worded = [first.on] + ([_on(suites, corpora, {})] if reassessed else [])
    return [
        Evaluated(evaluate=first.model_copy(update={"on": on, "label": here.model_copy(update={"precision": it})}))
        for on in worded
        for it in dict.fromkeys(decided)
    ]


def _on(suites: Sequence[Suite], corpora: dict[str, str], reassessed: Mapping[str, real.Labels]) -> list[str]:
    """The suites as a record names them: the corpus, by what labels where they are not its own, and the views."""
    by = {file: f"{REAL}:{digest(labels)}: " for file, labels in reassessed.items()}
    return [f"{corpora[it.sources[0]]}: {by.get(it.file, '')}{', '.join(it.views)}" for it in suites]


def _as_begun(store: ObjectStore, settings: Settings, possible: Sequence[Evaluated]) -> Evaluated:
    """That of ``possible`` as which the evaluation was begun, or nearest to it; the first one of a new evaluation."""
    record, found = layout.record(store), [settings.completed(it) for it in possible]
    return found[0] if record is None else min(found, key=lambda it: len(settings.differences(record["config"], it)))


def _place(place: str, judged: Sequence[Rival], possible: Sequence[Evaluated], suites: Sequence[Suite]) -> str:
    """Where an evaluation of a run goes that is not told: the same command finds it again, as whatever it was begun."""
    if judged[0].given.run is None:
        raise InputError(f"{place}: is no run. Say where the evaluation goes: -o DIR")
    names = [suite.name for suite in suites]
    found = [f"{place.rstrip('/')}.evaluations/{digest([Settings().of(it), names])[:12]}" for it in possible]
    return next((it for it in found if layout.record(open_store(it)) is not None), found[0])


def _check_kind(store: ObjectStore) -> None:
    record = layout.record(store)
    if record is not None and "evaluate" not in record["config"]:
        raise InputError(f"{store.url} holds a run that is no evaluation. Give {ANOTHER}.")


def _corpus(source: str, first: Rival, data: Data, store: ObjectStore, name: str, reporter: Reporter) -> Corpus:
    """The images of a source, with labels by the network's classes; those that the evaluation began with."""
    pinned = layout.generations(store)
    known = [Shard(**it) for it in pinned[0][name]] if pinned else []
    names = first.given.names
    if source in OWN:
        return _own(source, first, known)
    try:
        corpus = Corpus.scan(source, data.image_column, data.label_column, known, names)
        if not known:
            listed.refuse(corpus, f"--on {source}", 1.0)
    except InputError as error:
        raise InputError(f"{error} To judge on other images, give {ANOTHER}." if known else str(error)) from error
    own = corpus.class_names()
    numbers = tuple(map(str, range(data.classes)))
    if corpus.labels_are_names and own is not None and {*own} <= {*numbers} and not {*own} <= {*(names or ())}:
        corpus, names = replace(corpus, names=numbers), numbers  # as ImageNet-V2 names its folders
    if names is None and corpus.labels_are_names:
        names = _by_names(source, own or (), first, data.classes)
        corpus = replace(corpus, names=names)
        if names == own and not known:
            reporter.note(
                f"--on {source}: the network's {CONFIG} names no classes (label_names), so these are taken for 0 to "
                f"{len(own) - 1:,} in the order of their names: {ends(own)}"
            )
    return replace(corpus, shards=tuple(known) or corpus.shards)


def _by_names(source: str, own: tuple[str, ...], first: Rival, classes: int) -> tuple[str, ...]:
    """The classes of a network that names none, by their numbers, for labels that are names, ``own`` in their order."""
    imagenet = wordnet_ids(first.given.files[CONFIG], first.given.place)
    if imagenet is not None and {*own} <= {*imagenet}:
        return imagenet
    if len(own) == classes:
        return own
    which = (
        "is timm's of ImageNet-1k, whose classes are n01440764 and so on" if imagenet else "names none (label_names)"
    )
    raise InputError(
        f"--on {source}: has {len(own):,} classes by name, such as {', '.join(own[:3])}; the network has {classes:,}, "
        f"and its {CONFIG} {which}, so nothing says which is which. Give labels as numbers, or names."
    )


def ends(names: Sequence[str]) -> str:
    """The first and the last few names with their numbers."""
    said = [f"{name} = {number:,}" for number, name in enumerate(names)]
    return ", ".join(said if len(said) <= 2 * SHOWN else (*said[:SHOWN], "...", *said[-SHOWN:]))


def _own(source: str, first: Rival, known: Sequence[Shard]) -> Corpus:
    """The ``source`` images of the run that the network is of, from where its driver last saw them."""
    store = first.given.run
    if store is None:
        raise InputError(f"--on {source}: {first.given.place} is no run and has no such images. Give --on FOLDER.")
    root = hints.read(store, layout.PLACES).get(source)
    if not isinstance(root, str):
        raise InputError(f"--on {source}: it is not known where these images lie ({layout.PLACES}). Give --on FOLDER.")
    data, shards = first.given.data, layout.generations(store)[-1][source]
    if not shards:
        raise InputError(f"--on {source}: {store.url} has no such images (data.held_out: 0). Give --on FOLDER.")
    settings = (layout.settings(store) or {}).get("data", {})
    # Where the run has held them out, they lie in its labelled corpus, and are read as that is.
    own = source if root != hints.read(store, layout.PLACES).get("labelled") else "labelled"
    columns = [
        (settings.get(f"{kind}_columns") or {}).get(own) or getattr(data, f"{kind}_column")
        for kind in ("image", "label")
    ]
    if known and [vars(it) for it in known] != shards:
        raise InputError(f"--on {source}: the run's images are not those that were begun with. Give {ANOTHER}.")
    shards = [Shard(**it) for it in shards]
    corpus = Corpus.scan(root, columns[0], columns[1], shards, first.given.names)
    return replace(corpus, shards=tuple(shards))


def _run(
    wanted: Asked,
    settings: Settings,
    store: ObjectStore,
    corpora: dict[str, Corpus],
    first: Rival,
    reporter: Reporter,
) -> Run:
    parts: dict[str, Any] = {"data": wanted.data, "label": wanted.label, "cluster": wanted.cluster}
    config = Config.model_construct(**parts)
    shards = (len(next(iter(corpora.values())).shards),)
    return Run(
        *(config, store, corpora, shards, Lease(store), reporter, first.given.names, None, settings),
        format=settings.format or layout.FORMAT,
    )


def _check(
    run: Run,
    judged: Sequence[Rival],
    suites: Sequence[Suite],
    corpora: dict[str, str],
    reassessed: Mapping[str, real.Labels],
) -> None:
    """Decide where the work is done, and raise ``InputError`` for what would fail later."""
    preflight.check_writable(run.store.url, "-o")
    images, classes = 0, run.config.data.classes
    in_folders = {it for suite in suites for it in suite.folders}
    for source, name in corpora.items():
        corpus = run.corpora[name]
        counts = count_per_class(corpus.labels(classes), classes)
        if not counts.sum():
            raise InputError(f"--on {source}: holds no image. Give a folder of labelled images.")
        images += int(counts.sum())
        if source not in in_folders:
            run.reporter.note(listed.line(source, corpus, counts, run.class_names))
    for suite in (it for it in suites if it.kind == REAL):
        check_named(run.corpora[corpora[suite.source]], reassessed[suite.file])
    for suite in (it for it in suites if it.folders):
        same = published.same_images(suite, [run.corpora[corpora[it]] for it in suite.folders], classes)
        run.reporter.note(f"{suite.source}: {same:,} images in each of {len(suite.folders)} folders of ImageNet-C")
    for rival in judged:
        if rival.given.run is None:
            network_of(rival.given.files, rival.given.place)
    choose_where(run, images, "judged")
