"""The classes of a run: their number and names, which all corpora with labels must share."""

from collections.abc import Mapping, Sequence

from ray_ns.config import Data
from ray_ns.corpora.corpus import Corpus
from ray_ns.errors import InputError

SHOWN = 10


def class_names(data: Data, corpora: Mapping[str, Corpus]) -> tuple[str, ...] | None:
    """The names of the classes by number; None if labels are only numbers.

    Raises ``InputError`` if validation or test images have other classes than the labelled ones.
    """
    labelled = corpora["labelled"]
    names = labelled.class_names()
    for name in ("validation", "test"):
        if getattr(data, name) is not None:
            _check_same(name, corpora[name], labelled, names)
    if names is None or data.classes in {None, len(names)}:
        return names
    if not labelled.labels_are_names:
        return None  # the labelled images are part of a larger set, whose class names these are
    raise InputError(
        f"data.classes = {data.classes}, but data.labelled has {len(names)}: {_few(names)}. Leave data.classes out."
    )


def class_count(data: Data, names: tuple[str, ...] | None) -> int:
    """Number of classes: ``data.classes``, or the number of ``names``. ``InputError`` if both are missing."""
    if data.classes is not None:
        return data.classes
    if names is None:
        raise InputError(
            "data.classes: missing; the labels of data.labelled are numbers, which do not say how many. Set it to one "
            "more than the largest: ray-ns inspect --labelled counts them."
        )
    return len(names)


def _check_same(name: str, corpus: Corpus, labelled: Corpus, names: tuple[str, ...] | None) -> None:
    own = corpus.class_names()
    if own == names:
        return
    if own is not None and names is not None:
        lacks, besides = sorted({*names} - {*own}), sorted({*own} - {*names})
        if lacks or besides:
            said = [f"it lacks {_few(lacks)}"] * bool(lacks) + [f"it also has {_few(besides)}"] * bool(besides)
            raise InputError(f"data.{name}: its classes are not those of data.labelled: {' and '.join(said)}.")
        if not corpus.labels_are_names:
            raise InputError(
                f"data.{name}: numbers its classes differently from data.labelled: {_few(own)}; {_few(names)}."
            )
        return
    said_by, numbered = ((name, corpus), "labelled") if names is None else (("labelled", labelled), name)
    found = own or names or ()
    if said_by[1].labels_are_names and found != tuple(map(str, range(len(found)))):
        raise InputError(
            f"data.{said_by[0]} names its classes ({_few(found)}), but the labels of data.{numbered} are numbers. "
            f"Nothing says which is which. Give both in the same way."
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
