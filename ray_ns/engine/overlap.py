"""Split the labelled images of a new run into those that train and those that evaluate, with no image on both sides."""

import itertools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ray_ns.corpora import hold_out, twins
from ray_ns.corpora.corpus import Corpus, count_per_class
from ray_ns.corpora.unreadable import in_words, refuse_above
from ray_ns.engine.run import Run
from ray_ns.engine.stages.digests import too_large
from ray_ns.errors import InputError
from ray_ns.images import leak_guard
from ray_ns.images.isolate import SafeDecode
from ray_ns.keyed import seed

LABELLED = ("labelled", "validation", "test")
EVALUATED = ("validation", "test")
HELD_OUT = 0x4E1D  # makes this draw differ from others of the run's seed

Digests = dict[str, list[list[bytes]]]


def divide(run: Run) -> Digests:
    """Split the labelled images of a new run into training, validation and test images, once for the whole run.

    Held-out images are drawn by ``run.seed``; near-copies stay together. Three kinds of images are left out of training
    with a warning: those that cannot be read, those whose bytes have several classes, and those whose bytes are a
    validation or test image too. They are no errors, since they are seldom the user's doing, nobody can take them out
    of a tar or Parquet file by hand, and the run records which they are. Validation and test images of the first two
    kinds stay, and count as wrong answers. Raises ``InputError`` where they are more than ``data.max_quarantined``
    allows, or a class has too few images left.

    Returns the digests of the images that are left, per corpus and shard, in order of rows; nothing where the corpora
    are too large to read every image.
    """
    config, corpora = run.config, run.corpora
    given = [name for name in LABELLED if getattr(config.data, name) is not None]
    digests: Digests = {}
    first: np.ndarray | None = None
    if too_large(corpora):
        run.reporter.note(
            "the labelled corpora are too large to read every image before the run. Unreadable images are left out "
            "when training meets them. Nobody looks for images that both train and evaluate, or for labelled, "
            "validation and test images in the pool; ray-ns ingest --keep-out leaves them out."
        )
    else:
        digests, thumbs = _read(run, given)
        _leave_out_conflicts(run, digests, thumbs)
        first = _near_copies(run, digests, thumbs)
    if len(given) < len(LABELLED):
        _hold_out(run, [name for name in EVALUATED if name not in given], digests, first)
    if digests:
        _leave_out_shared(run, digests)
    return digests


def class_name(run: Run, label: int) -> str:
    """The name of a class; its number where it has no name."""
    return run.class_names[label] if run.class_names else str(label)


def _read(run: Run, names: Sequence[str]) -> tuple[Digests, dict[str, list[np.ndarray]]]:
    """Read these corpora: the digests of their images, and their thumbnails where there are not too many.

    Unreadable images are left out of the labelled corpus.
    """
    corpora, allowed = run.corpora, run.config.data.max_quarantined
    decode = SafeDecode(leak_guard.thumbnail, run.config.label.image_seconds, len(os.sched_getaffinity(0)))
    digests: Digests = {}
    thumbs: dict[str, list[np.ndarray]] = {}
    few = True
    done = itertools.count(1)
    run.reporter.begin("labelled images", sum(len(corpora[name].shards) for name in names), "shards")
    for name in names:
        wanted = twins.MOST - sum(map(len, thumbs.values())) if few else 0
        found = hold_out.look(corpora[name], decode, lambda: run.reporter.progress(next(done)), wanted)
        few = found.pixels is not None
        thumbs[name] = found.pixels or []
        images, reasons = sum(map(len, found.digests)), Counter(found.bad.values())
        refuse_above(allowed, images, reasons, f"data.{name}", "data.max_quarantined", found.bad)
        digests[name] = found.digests
        if found.bad:
            outcome = "are left out" if name == "labelled" else "count as wrong answers"
            run.reporter.warn(
                f"data.{name}: {len(found.bad):,} of {images:,} images cannot be read and {outcome} "
                f"({in_words(reasons, found.bad)})"
            )
        if name == "labelled":
            corpora[name] = corpora[name].keeping(found.readable)
            digests[name] = _kept(found.digests, found.readable)
    run.reporter.end(f"{sum(len(of) for it in digests.values() for of in it):,} of them can be used")
    if not few:
        run.reporter.note(
            f"near-copies are not looked for among more than {twins.MOST:,} labelled, validation and test images."
        )
    return digests, thumbs if few else {}


def _leave_out_conflicts(run: Run, digests: Digests, thumbs: dict[str, list[np.ndarray]]) -> None:
    """Leave out labelled images whose bytes have several classes; warn of such validation and test images."""
    config, corpora = run.config, run.corpora
    for name, own in digests.items():
        corpus = corpora[name]
        labels = corpus.labels(config.data.classes)
        found = hold_out.conflicts(own, labels)
        rows = [np.array([it not in found for it in of], bool) for of in own]
        images, many = sum(map(len, own)), sum(int((~of).sum()) for of in rows)
        if not found:
            continue
        one = min(found)
        such_as = " = ".join(
            f"{_named_in_class(corpus, own, labels, one, label)} ({class_name(run, label)})" for label in found[one]
        )
        said = f"data.{name}: {many:,} of {images:,} images have the same bytes in several classes, such as {such_as}"
        if many > config.data.max_quarantined * images:
            raise InputError(
                f"{said}; that is more than data.max_quarantined = {config.data.max_quarantined:g}. Leave each in one "
                f"class, or raise it."
            )
        outcome = "They are left out" if name == "labelled" else "They stay, and all but one class is a wrong answer"
        run.reporter.warn(f"{said}. {outcome}.")
        if name == "labelled":
            corpora[name] = corpus.keeping(rows)
            digests[name] = _kept(own, rows)
            thumbs[name] = list(itertools.compress(thumbs.get(name, []), np.concatenate(rows)))


def _named_in_class(
    corpus: Corpus, own: Sequence[Sequence[bytes]], labels: Sequence[np.ndarray], digest: bytes, label: int
) -> str:
    """The name of the first image of a class with that digest."""
    of_class = [
        [it if at == label else b"" for it, at in zip(*of, strict=True)] for of in zip(own, labels, strict=True)
    ]
    return hold_out.named(corpus, of_class, digest) or ""


def _near_copies(run: Run, digests: Digests, thumbs: dict[str, list[np.ndarray]]) -> np.ndarray | None:
    """Warn of near-copies. For each labelled image the number of the first one in its group, within its class."""
    whole = [it for of in thumbs.values() for it in of]
    if not whole:
        return None
    config, labelled = run.config, run.corpora["labelled"]
    pairs = twins.twins(np.stack(whole))
    own = len(thumbs["labelled"])
    across = pairs[(pairs[:, 0] < own) & (pairs[:, 1] >= own)]
    held = {it for name in EVALUATED for of in digests.get(name, ()) for it in of}
    same = np.array([it in held for of in digests["labelled"] for it in of], bool)
    across = across[~same[across[:, 0]]]  # the same images are left out later, with a warning of their own
    if len(across):
        images = len(np.unique(across[:, 0]))
        run.reporter.warn(
            f"data.labelled: {images:,} images look like near-copies (re-encoded, resized or mirrored) of validation "
            f"or test images, such as {_labelled_name(labelled, int(across[0, 0]))}. They still train: "
            f"scores may be too high. Take them out, or let the validation and test images be held out of the labelled "
            f"ones."
        )
    inside = twins.within(pairs[pairs[:, 1] < own], np.concatenate(labelled.labels(config.data.classes)))
    if len(inside) and len(thumbs) < len(LABELLED):
        one, other = (_labelled_name(labelled, int(it)) for it in inside[0])
        run.reporter.note(
            f"data.labelled: {len(np.unique(inside)):,} images look like near-copies (re-encoded, resized or "
            f"mirrored) of others of their class, such as {one} and {other}; they are held out together."
        )
    return twins.groups_of(inside, own)


def _labelled_name(corpus: Corpus, number: int) -> str:
    """The name of an image by its number in the corpus."""
    for reader in map(corpus.open, corpus.shards):
        rows = sum(reader.group_rows)
        if number < rows:
            return reader.where(number)
        number -= rows
    raise IndexError(number)


def _hold_out(run: Run, missing: Sequence[str], digests: Digests, first: np.ndarray | None) -> None:
    """Draw the validation and test images that were not given from the labelled ones."""
    config, corpora = run.config, run.corpora
    labelled = corpora["labelled"]
    if config.data.held_out == 0:
        against = ", and nothing can speak against a student" if "validation" in missing else ""
        run.reporter.warn(
            f"data.held_out: 0: every labelled image trains. There are no {' and '.join(missing)} images to measure on"
            f"{against}."
        )
        for name in missing:
            corpora[name] = replace(labelled, shards=())
            if digests:
                digests[name] = []
        return
    labels = labelled.labels(config.data.classes)
    draw = hold_out.drawing(config.data.held_out, sum(map(len, labels)), config.data.classes)
    key = seed(config.run.seed, HELD_OUT)
    try:
        parts = hold_out.hold_out(labelled, labels, draw, len(missing), key, first)
    except ValueError as error:
        label = error.args[0]
        images = sum(int((of == label).sum()) for of in labels)
        raise InputError(
            f"data.labelled: class {class_name(run, label)} has too few images to hold some out for "
            f"{' and '.join(missing)}: {images} that can be used. {_needed(draw(images) * len(missing), images)} "
            f"Add some, or give {' and '.join(f'data.{name}' for name in missing)}."
        ) from error
    if first is not None:
        side = np.argmax([np.concatenate(rows) for rows in parts], 0)
        cut = np.unique(first[side != side[first]])
        if len(cut):
            run.reporter.warn(
                f"data.labelled: {len(cut):,} groups of near-copies are on both sides, since their classes hold little "
                f"else, such as {_labelled_name(labelled, int(cut[0]))}: scores may be too high."
            )
    of_all = digests.get("labelled")
    for name, rows in zip((*missing, "labelled"), parts, strict=True):
        corpora[name] = labelled.keeping(rows)
        if of_all is not None:
            digests[name] = _kept(of_all, rows)


def _needed(wanted: int, images: int) -> str:
    """The advice: how many images each class needs, or which setting to change; ``wanted``: of ``images``."""
    if wanted > 2 and 2 * wanted >= images:
        return "data.held_out leaves little: lower it."
    return f"Each class needs {wanted + 1} at least."


def _kept(digests: Sequence[Sequence[bytes]], rows: Sequence[np.ndarray]) -> list[list[bytes]]:
    """The digests of the rows that are true, per shard."""
    return [list(itertools.compress(of, kept)) for of, kept in zip(digests, rows, strict=True)]


def _leave_out_shared(run: Run, digests: Digests) -> None:
    """Leave out validation images that are test images too, and labelled images that are either."""
    corpora, classes = run.corpora, run.config.data.classes
    whole, left = dict(corpora), dict(digests)
    for name, others in {"validation": ("test",), "labelled": EVALUATED}.items():
        held = [digest for other in others for digest in digests[other]]
        corpora[name], shared = hold_out.without(whole[name], digests[name], held)
        left[name] = [[it for it in of if it not in shared] for of in digests[name]]
        if shared:
            one = min(shared)
            twin = next(filter(None, (hold_out.named(whole[it], digests[it], one) for it in others)))
            run.reporter.warn(
                f"data.{name}: {len(shared):,} images are in data.{' or data.'.join(others)} too and are left out, "
                f"such as {hold_out.named(whole[name], digests[name], one)} = {twin}"
            )
    digests |= left
    if whole["validation"].shards and not any(map(len, corpora["validation"].labels(classes))):
        raise InputError("data.validation: every image of it is a test image too. Give others.")
    counts = count_per_class(corpora["labelled"].labels(classes), classes)
    if not counts.all():
        raise InputError(
            f"data.labelled: every image of class {class_name(run, int(counts.argmin()))} is a validation or test "
            f"image too, or cannot be read. Add others."
        )
