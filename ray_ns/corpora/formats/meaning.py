"""What labels mean: numbers or names, from which source, of which classes. All shards must agree with the first."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import pyarrow as pa
import pyarrow.compute as pc

from ray_ns.corpora.formats import ranges
from ray_ns.corpora.formats.place import Place
from ray_ns.errors import InputError

SHOWN = 10  # names in a message


@dataclass(frozen=True)
class Meaning:
    """What the labels of one shard mean.

    Attributes:
        said: what must be the same in every shard, and what it is here, in words.
        classes: the names that label numbers stand for, in order; None if the shard has no such list.
        texts: the different labels if they are names, None if they are numbers.
        source: where in a tar the labels are.
    """

    said: tuple[tuple[str, str], ...]
    classes: tuple[str, ...] | None = None
    texts: frozenset[str] | None = None
    source: str | None = None


def held_together(place: Place, paths: Sequence[str], look: Callable[[str], Meaning]) -> Meaning | None:
    """What all shards mean, with the ``texts`` of all; None if no shard has images.

    ``look``: returns the meaning of a shard. Raises ``InputError`` for a shard that differs from the first.
    """
    first, named = None, ""
    texts: set[str] = set()
    for path, meaning in zip(paths, ranges.each(place, look, paths), strict=True):
        if not meaning.said:  # a tar without an image
            continue
        if first is None:
            first, named = meaning, path
        _check_alike(place, named, first, path, meaning)
        texts |= meaning.texts or set()
    return None if first is None else replace(first, texts=None if first.texts is None else frozenset(texts))


def _check_alike(place: Place, first: str, then: Meaning, path: str, now: Meaning) -> None:
    for (what, here), (_, there) in zip(now.said, then.said, strict=True):
        if here != there:
            raise InputError(
                f"{place.name(path)}: {what} {here}; in {first}: {there}. Write the shards alike, or put those of each "
                f"kind into folders of their own."
            )
    if now.classes == then.classes:
        return
    ours, theirs = now.classes or (), then.classes or ()
    if not ours or not theirs:
        raise InputError(
            f"{place.name(path)}: {'names' if ours else 'does not name'} its classes; {first} "
            f"{'does' if theirs else 'does not'}. Write the shards alike, with one list of class names."
        )
    number = next(at for at, (one, other) in enumerate(zip_longest(ours, theirs)) if one != other)
    said = [repr(it[number]) if number < len(it) else "not there" for it in (ours, theirs)]
    raise InputError(
        f"{place.name(path)}: class {number} is {said[0]}; in {first} it is {said[1]}. The numbers of the shards mean "
        f"different classes: write them again with one list of class names."
    )


def in_one_form(texts: pa.Array) -> pa.Array:
    """Names in the Unicode form that folders' names get too: systems write "é" as one code point or as two."""
    return pc.utf8_normalize(texts, form="NFC")


def class_names(texts: Iterable[str]) -> tuple[str, ...]:
    """Classes by number: names sorted as text, or as numbers if all of them are numbers."""
    found = {*texts}
    numbers = all(name.isdecimal() for name in found)
    return tuple(sorted(found, key=lambda name: (int(name) if numbers else 0, name)))


def numbers_of(texts: pa.Array, names: Sequence[str], where: Callable[[int], str]) -> pa.Array:
    """The numbers (int64) of labels that are names; null stays null. ``InputError`` for a label not in ``names``."""
    found = pc.index_in(texts, pa.array(names, texts.type)).cast(pa.int64())
    unknown = pc.and_(pc.is_null(found), pc.is_valid(texts))
    row = pc.index(unknown, True).as_py()
    if row >= 0:
        raise InputError(
            f"{where(row)}: class {texts[row].as_py()!r} is none of the labelled corpus, which has "
            f"{', '.join(names[:SHOWN])}{' ...' if len(names) > SHOWN else ''}"
        )
    return found
