"""Whether classes are ImageNet's: published errors of AlexNet, by which mCE and mFR are normalised, are of those."""

import re
from collections.abc import Sequence

CLASSES = 1000
_WNID = re.compile(r"n\d{8}", re.ASCII)


def its_own(names: Sequence[str] | None) -> bool:
    """Whether ``names`` are those of ImageNet's 1,000 classes, by WordNet's numbers, as its folders are called."""
    if names is None or len(names) != CLASSES or not all(map(_WNID.fullmatch, names)):
        return False
    from timm.data import ImageNetInfo  # which loads torch

    return {*names} == {*ImageNetInfo("imagenet-1k").label_names()}
