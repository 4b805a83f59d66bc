"""Unreadable images: their counts in words, and the error if there are too many."""

import math
from collections.abc import Iterable, Mapping
from itertools import islice

from ray_ns.errors import InputError
from ray_ns.images.decode import FORMATS, Reason

NAMED = 3


def in_words(reasons: Mapping[str, int], names: Iterable[str] = ()) -> str:
    """How many images for each reason, and the first names: ``empty 1, truncated 2; such as a.jpg, b.jpg``."""
    counted = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    such_as = ", ".join(islice(names, NAMED))
    return f"{counted}; such as {such_as}" if such_as else counted


def refuse_above(
    allowed: float, rows: int, reasons: Mapping[str, int], corpus: str, setting: str, names: Iterable[str] = ()
) -> None:
    """Raise ``InputError`` if more than the share ``allowed`` of ``rows`` images is unreadable, or all of them."""
    bad = sum(reasons.values())
    if bad > math.floor(allowed * rows) or (rows and bad == rows):
        mend = "Repair the images"
        if {Reason.FORMAT, Reason.NOT_AN_IMAGE} & reasons.keys():
            read = f"{', '.join(FORMATS[:-1])} and {FORMATS[-1]}"
            mend = f"{read} are read: convert the others (magick mogrify -format jpg *.heic *.tif) or take them out"
        raise InputError(
            f"{corpus}: {bad} of {rows} images cannot be read ({in_words(reasons, names)}), "
            + (f"more than {setting} = {allowed:g}. " if bad > allowed * rows else "and none is left. ")
            + f"{mend}{', or raise it' if bad < rows else ''}."
        )
