"""Labels for new images by a network that is there: the label stage of a run, without the rest of one.

A prediction is a run of its own (``store``): begun once, resumed by the same command, verified as any other. Its stages
are ``network``, a copy of the network's two files, and ``label``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ray_ns.artifacts.calibration import Calibration
from ray_ns.artifacts.report import report_of
from ray_ns.config import FED, Config, Settings
from ray_ns.config.labelling import OF_A_STUDENT
from ray_ns.config.prediction import Asked, Predicted, Prediction, asked, labelled_by
from ray_ns.corpora import layout as listed
from ray_ns.corpora.corpus import Corpus, Shard
from ray_ns.engine import cards, precision, preflight, touched
from ray_ns.engine.places import check_apart, check_free, check_lasting, note_places
from ray_ns.engine.predict import FEW_IMAGES, choose_where
from ray_ns.engine.run import Run
from ray_ns.engine.stages.calibrate import Calibrate
from ray_ns.engine.stages.label import Label
from ray_ns.engine.stages.network import Copy
from ray_ns.errors import InputError
from ray_ns.export import files
from ray_ns.export.labels import Labelled, export
from ray_ns.export.network import Given, given, of_run
from ray_ns.export.so_far import best_so_far
from ray_ns.models.files import CONFIG, WEIGHTS
from ray_ns.models.given import network_of
from ray_ns.observe import Mode, Reporter
from ray_ns.seals import sha256
from ray_ns.store import layout
from ray_ns.store.commit import find_commit
from ray_ns.store.fork import open_run
from ray_ns.store.lease import Lease
from ray_ns.store.objects import ObjectStore, open_store

ANOTHER = "another -o"
# Of few images, the unit that is committed: what a crash costs.
FEW_SHARD_ROWS = 1000


def predict_corpus(
    network: str, source: str, place: str, overrides: Sequence[str] = (), mode: Mode = "auto"
) -> Labelled:
    """Label every image of ``source``, or the rest of them after an interruption; a finished prediction is only read.

    ``network``: a run, whose best network is taken, or a folder with the two files of one. ``source``: a corpus without
    labels. ``place``: the directory of the prediction. ``overrides``: ``label.*``, ``cluster.*``, some of ``data.*``.

    Raises ``InputError`` for whatever cannot be labelled, before anything is written.
    """
    check_lasting({"SRC": source, "-o": place})
    reporter = Reporter(mode)
    store = open_store(place)
    check_apart(store.url, source, f"{ANOTHER}, outside of SRC")
    check_free(store, ANOTHER)
    record = layout.record(store)
    begun = record["config"] if record else None
    if begun is not None and "predict" not in begun:
        raise InputError(f"{store.url} holds a run that is no prediction. Give {ANOTHER}.")
    found = _network(network, reporter)
    settings = Settings.of_run(record, Predicted)
    wanted = settings.completed(asked(_values(found, source, reporter), overrides))
    pool = _pool(wanted, store, reporter)
    images = _images(pool)
    if not images:
        raise InputError(f"{source}: holds no image. Give a folder of images, Parquet shards or tars.")
    label = precision.of_section(wanted.label, bool(wanted.label.gpus_per_actor), begun and begun["predict"]["label"])
    if images <= FEW_IMAGES and not any(it.startswith("label.shard_rows=") for it in overrides):
        label = label.model_copy(update={"shard_rows": min(label.shard_rows, FEW_SHARD_ROWS)})
    parts: dict[str, Any] = {"data": wanted.data, "label": label, "cluster": wanted.cluster}
    config = Config.model_construct(**parts)
    hashes = {"weights": sha256(found.files[WEIGHTS]), "network": sha256(found.files[CONFIG])}
    decides = Predicted(predict=Prediction(**hashes, data=config.data, label=config.label))
    layout.check_owner(store, lambda before: settings.differences(before, decides), ANOTHER)
    corpora, format = {"pool": pool}, record["format"] if record else layout.FORMAT
    with Run(
        *(config, store, corpora, (len(pool.shards),), Lease(store), reporter, found.names, None, settings),
        format=format,
    ) as run:
        touched.compare(run, store)
        if find_commit(store, Label.name) is None:
            _check(run, found, images)
        if record is None:
            seen = {"pool": [vars(shard) for shard in pool.shards]}
            classes = layout.Classes(config.data.classes, found.names)
            layout.begin(store, settings.of(decides), seen, run.lease.check, classes)
        note_places(store, run.corpora)
        copy = run.ensure(Copy.name, Copy(found.files))
        run.called[copy.place] = found.place
        run.ensure(Label.name, Label(copy, counted=False))
        cards.keep(run)
    return Labelled.at(store, Label.name, pool)


def predict_to(
    network: str, source: str, output: str, place: str | None, overrides: Sequence[str] = (), mode: Mode = "auto"
) -> Labelled:
    """``predict_corpus``, and its labels as the file ``output``. ``place``: None: beside it (``FILE.run``)."""
    files.check(output)
    check_apart(output, source, f"{ANOTHER}, outside of SRC")
    found = predict_corpus(network, source, place or f"{output}.run", overrides, mode)
    export(found, output, reporter=Reporter(mode))
    return found


def _network(place: str, reporter: Reporter) -> Given:
    """The network at ``place``; of a run that has not ended the best one so far, which is said."""
    store = open_run(place)
    if layout.record(store) is None or report_of(store) is not None:
        return given(place)
    best = best_so_far(store)
    if best is None:
        raise InputError(
            f"{place}: no network of this run is evaluated yet. Go on with it, or give a run that has ended or a "
            f"folder with {WEIGHTS} and {CONFIG}, such as RUN/best."
        )
    turn, network = best
    reporter.note(f"{place} has no report yet: its best network so far labels, that of {turn}")
    return of_run(place, store, network)


def _temperature(found: Given, reporter: Reporter) -> float:
    """That of a network whose run finds them: it has done so for those that have labelled."""
    assert found.run is not None, "a run has said so"
    assert found.network is not None, "a run's network has a commit"
    calibration = find_commit(found.run, Calibrate(found.network).place)
    if calibration is None:
        reporter.note(
            f"{found.place}: label.temperature is auto there, and this network has labelled no pool yet: its "
            f"confidences stay as they are (label.temperature=NUMBER says otherwise)"
        )
        return 1.0
    return Calibration(calibration).temperature


def _values(found: Given, source: str, reporter: Reporter) -> dict[str, Any]:
    """Settings by section: how the network is fed and, where it is a run's, how that run labels."""
    data = found.data
    fed = {name: getattr(data, name) for name in ("classes", *FED)}
    images = {"labelled": found.place, "pool": source, "max_quarantined": 1.0}
    label = labelled_by(None if found.run is None else layout.record(found.run), OF_A_STUDENT)
    if label.get("temperature") == "auto":
        label["temperature"] = _temperature(found, reporter)
    return {
        "data": {**fed, **images, "image_column": data.image_columns.get("pool", data.image_column)},
        "label": label,
    }


def _pool(wanted: Asked, store: ObjectStore, reporter: Reporter) -> Corpus:
    """The images: those that the prediction began with, where it has begun; what is new is told of and left out."""
    source = wanted.data.pool
    pinned = layout.generations(store)
    known = [Shard(**it) for it in pinned[0]["pool"]] if pinned else []
    try:
        pool = Corpus.scan(source, wanted.data.image_column, None, known, compared=True)
    except InputError as error:
        raise InputError(f"{error} To label other images, give {ANOTHER}." if known else str(error)) from error
    new = pool.shards[len(known) :] if known else ()
    if new:
        images = sum(sum(pool.open(shard).group_rows) for shard in new)
        reporter.note(f"SRC has gained {images:,} images, which are left out: {ANOTHER} labels all there are")
    return replace(pool, shards=tuple(known) or pool.shards)


def _images(pool: Corpus) -> int:
    """How many images there are; counted no further than past ``FEW_IMAGES``."""
    images = 0
    for shard in pool.shards:
        images += sum(pool.open(shard).group_rows)
        if images > FEW_IMAGES:
            break
    return images


def _check(run: Run, found: Given, images: int) -> None:
    """Decide where the labelling is done, and raise ``InputError`` for what would fail later."""
    preflight.check_writable(run.store.url, "-o")
    run.reporter.note(listed.line("SRC", run.corpora["pool"], None, None))
    if found.names is None:
        run.reporter.note(f"{found.place}: its classes have no names; their numbers are the labels")
    network = network_of(found.files, found.place) if found.run is None else None
    choose_where(run, images, "labelled", network)
