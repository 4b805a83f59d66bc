"""Everything that can be refused before anything expensive starts, is refused here."""

import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ray_ns import config_read
from ray_ns.config import Cluster, Config, Student, Training
from ray_ns.engine import digests as known_images
from ray_ns.engine.session import Session, check_resources, local_cpus
from ray_ns.errors import InputError
from ray_ns.images import divide as division
from ray_ns.images import near
from ray_ns.images.classes import class_count, class_names
from ray_ns.images.corpus import Corpus, Shard, count_per_class
from ray_ns.images.isolate import SafeDecode
from ray_ns.images.unreadable import in_words, refuse_above
from ray_ns.keyed import seed
from ray_ns.observe import Reporter

LABELLED = ("labelled", "validation", "test")
EVALUATED = ("validation", "test")
HELD_OUT = 0x4E1D  # sets this draw apart from the others of the run's seed


def scan_corpora(
    config: Config, known: dict[str, list[Shard]], reporter: Reporter, grow: bool = False
) -> dict[str, Corpus]:
    """The run's corpora by name. ``known``: the shards an earlier start of the run saw, with their ordinals.

    What a corpus has gained since is told of and left out, but where the pool may ``grow``. Validation or test images
    that are held out of the labelled corpus begin as all of it; ``divide`` parts them.
    """
    data = config.data
    corpora: dict[str, Corpus] = {}
    for name in (*LABELLED, "pool"):
        label_column = data.label_column if name in LABELLED else None
        root = getattr(data, name) or data.labelled
        try:
            names = corpora["labelled"].class_names() if name in EVALUATED else None
            corpus = Corpus.scan(root, data.image_column, label_column, known.get(name, ()), names)
        except InputError as error:
            raise InputError(f"data.{name}: {error}") from error
        corpora[name] = corpus
        if name in known and not (grow and name == "pool"):
            told = reporter if getattr(data, name) is not None else None  # else it was told of as the labelled one
            corpora[name] = as_known(
                corpus, known[name], f"data.{name}", "--grow" if name == "pool" else "a new run.dir", told
            )
    return corpora


def as_known(corpus: Corpus, known: Sequence[Shard], name: str, taken_in_by: str, reporter: Reporter | None) -> Corpus:
    """The corpus with the ``known`` shards alone; what it has gained since is told of, and what would take it in."""
    new = len(corpus.shards) - len(known)
    if new and reporter is not None:
        reporter.note(f"{name}: new shards left out: {new}; {taken_in_by} takes them in.")
    return replace(corpus, shards=tuple(known))


def with_classes(config: Config, corpora: dict[str, Corpus]) -> tuple[Config, tuple[str, ...] | None]:
    """The config with the number of its classes, as the corpora say where it does not; and what they are called."""
    names = class_names(config.data, corpora)
    return config_read.with_classes(config, class_count(config.data, names)), names


def check_writable(url: str) -> None:
    """Raise ``InputError`` where the run directory cannot be made or written."""
    if "://" in url:
        return  # the first write says it, before anything expensive
    folder = Path(url)
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"run.dir={url}: {folder} cannot be written ({error.strerror}). Give another run.dir."
        ) from error


def fewest_images(recipe: Training, cluster: Cluster) -> int:
    """Images that a worker's network sees at once, at least: with the most workers, in the smallest microbatch."""
    share = recipe.batch * (1 + (recipe.ratio if isinstance(recipe, Student) else 0)) // cluster.worker_counts[-1]
    parts = -(-share // (cluster.train_microbatch or share))
    return share // parts


def check_models(config: Config) -> list[str]:
    """Build every network without memory for its weights; what is no mistake but unlike the method is returned.

    Raises ``InputError`` where a network, its first weights, its optimiser or its fine-tuning cannot be had.
    """
    from ray_ns.models import zoo
    from ray_ns.train.optim import optimizer

    sizes = []
    for place, recipe in config.recipes().items():
        try:
            network = zoo.check(recipe.model, config.data)
            zoo.check_batch(network, config.data, fewest_images(recipe, config.cluster))
            sizes.append(zoo.parameters(network))
            optimizer(network, recipe)
            zoo.pretrained_file(recipe.model)
            if recipe.tuning is not None:
                data = config.at_size(recipe.finetune.size or config.data.size).data
                tuned = zoo.check(recipe.model, data)
                zoo.check_batch(tuned, data, fewest_images(recipe.tuning, config.cluster))
                zoo.freeze(tuned, recipe.finetune.freeze)
                optimizer(tuned, recipe.tuning)
        except InputError as error:
            raise InputError(f"{place}.{error}") from error
    return [
        f"{place}.model: {after:,} parameters, its teacher has {before:,}. Noisy Student wants an equal or larger "
        f"student; a smaller one is distillation."
        for place, before, after in zip(list(config.recipes())[1:], sizes, sizes[1:], strict=False)
        if after < before
    ]


def check(session: Session) -> None:
    """Raise ``InputError`` for what would fail later: data, models, resources of a local cluster."""
    config = session.config
    for name in LABELLED:
        counts = count_per_class(session.corpora[name].labels(config.data.classes), config.data.classes)
        if not counts.sum():
            raise InputError(f"data.{name}: {getattr(config.data, name)} holds no image")
        missing = np.flatnonzero(counts == 0)
        if name == "labelled" and len(missing):
            found = ", ".join(_class(session, int(label)) for label in missing[:10])
            raise InputError(
                f"data.labelled: no labelled image of class {found} (data.classes = "
                f"{config.data.classes}). Add some, or lower data.classes and renumber the labels."
            )
    pool = session.corpora["pool"]
    if not any(sum(pool.open(shard).group_rows) for shard in pool.shards):
        raise InputError(f"data.pool: {config.data.pool} holds no image")
    for warning in check_models(config):
        session.reporter.warn(warning)
    if config.cluster.address is None and "RAY_ADDRESS" not in os.environ:
        import torch

        gpus = torch.cuda.device_count() if config.cluster.gpus is None else config.cluster.gpus
        check_resources(config, local_cpus(config), gpus)


def divide(session: Session) -> dict[str, list[list[bytes]]]:
    """Part the labelled images of a new run into those that train and those that evaluate, once for all its time.

    What is held out is drawn from ``run.seed``. Left out of training with a warning, rather than refused, is an image
    that cannot be read, and one whose bytes are in validation or test images too: it is seldom the user's doing, cannot
    be taken out of a tar or a Parquet file by hand, and the run writes down what it left out. Unreadable validation and
    test images stay, as wrong answers. Raises ``InputError`` where more are unreadable than ``data.max_quarantined``
    allows, or a class has too few left.

    Returns the digests of the images that are left, per corpus and shard, in order of rows; nothing where the corpora
    are too large to look at.
    """
    config, corpora = session.config, session.corpora
    given = [name for name in LABELLED if getattr(config.data, name) is not None]
    digests: dict[str, list[list[bytes]]] = {}
    if known_images.too_large(corpora):
        session.reporter.note(
            "the labelled corpora are too large to look at every image before the run: what cannot be read is left out "
            "when training meets it, nobody looks for images that train and evaluate too, and what the pool has of "
            "labelled, validation or test images is not known; ray-ns ingest --keep-out leaves it out."
        )
    else:
        digests = _looked_at(session, given)
    missing = [name for name in EVALUATED if name not in given]
    if missing:
        labelled = corpora["labelled"]
        try:
            parts = division.hold_out(
                labelled,
                labelled.labels(config.data.classes),
                config.data.held_out / 2,
                len(missing),
                seed(config.run.seed, HELD_OUT),
            )
        except ValueError as error:
            raise InputError(
                f"data.labelled: class {_class(session, error.args[0])} has too few images to hold some out. Add "
                f"some, give data.validation and data.test, or lower data.held_out."
            ) from error
        of_all = digests.get("labelled")
        for name, rows in zip((*missing, "labelled"), parts, strict=True):
            corpora[name] = labelled.keeping(rows)
            if of_all is not None:
                digests[name] = _kept(of_all, rows)
    if digests:
        _part_twins(session, digests)
    return digests


def _looked_at(session: Session, names: Sequence[str]) -> dict[str, list[list[bytes]]]:
    """The digests of the images of these corpora; the labelled one keeps those that can be read."""
    corpora, allowed = session.corpora, session.config.data.max_quarantined
    decode = SafeDecode(near.thumbnail, session.config.label.image_seconds, len(os.sched_getaffinity(0)))
    digests = {}
    done = itertools.count(1)
    session.reporter.begin("labelled images", sum(len(corpora[name].shards) for name in names), "shards")
    for name in names:
        found = division.look(corpora[name], decode, lambda: session.reporter.progress(next(done)))
        images, reasons = sum(map(len, found.digests)), Counter(found.bad.values())
        refuse_above(allowed, images, reasons, f"data.{name}", "data.max_quarantined", found.bad)
        digests[name] = found.digests
        if found.bad:
            outcome = "are left out" if name == "labelled" else "count as wrong answers"
            session.reporter.warn(
                f"data.{name}: {len(found.bad):,} of {images:,} images cannot be read and {outcome} "
                f"({in_words(reasons, found.bad)})"
            )
        if name == "labelled":
            corpora[name] = corpora[name].keeping(found.readable)
            digests[name] = _kept(found.digests, found.readable)
    session.reporter.end(f"{sum(len(of) for it in digests.values() for of in it):,} of them can be used")
    return digests


def _kept(digests: Sequence[Sequence[bytes]], rows: Sequence[np.ndarray]) -> list[list[bytes]]:
    """Those of the rows that are true, per shard."""
    return [list(itertools.compress(of, kept)) for of, kept in zip(digests, rows, strict=True)]


def _part_twins(session: Session, digests: dict[str, list[list[bytes]]]) -> None:
    """Leave out of validation images what is a test image too, and of labelled ones what is either."""
    corpora, classes = session.corpora, session.config.data.classes
    whole, left = dict(corpora), dict(digests)
    for name, others in {"validation": ("test",), "labelled": EVALUATED}.items():
        held = [digest for other in others for digest in digests[other]]
        corpora[name], shared = division.without(whole[name], digests[name], held)
        left[name] = [[it for it in of if it not in shared] for of in digests[name]]
        if shared:
            one = min(shared)
            twin = next(filter(None, (division.named(whole[it], digests[it], one) for it in others)))
            session.reporter.warn(
                f"data.{name}: {len(shared):,} images are in data.{' or data.'.join(others)} too and are left out, "
                f"such as {division.named(whole[name], digests[name], one)} = {twin}"
            )
    digests |= left
    if not any(map(len, corpora["validation"].labels(classes))):
        raise InputError("data.validation: every image of it is a test image too. Give others.")
    counts = count_per_class(corpora["labelled"].labels(classes), classes)
    if not counts.all():
        raise InputError(
            f"data.labelled: every image of class {_class(session, int(counts.argmin()))} is a validation or test "
            f"image too, or cannot be read. Add others."
        )


def _class(session: Session, label: int) -> str:
    return session.class_names[label] if session.class_names else str(label)
