"""ImageNet's validation images with their labels reassessed (ReaL; Beyer et al. 2020): several true classes, or none.

The published file, ``real.json``, lists the classes of the images 1 to 50,000 in order; an image's number is in its
file's name. A label is right if it is one of the image's; images without any are left out.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from ray_ns.errors import InputError

_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})(?=\D|$)")
Labels = Sequence[Sequence[int]]


def read(path: str, classes: int) -> Labels:
    """The file's lists. ``InputError`` where it is not such a file, or names a class that the network does not have."""
    try:
        found = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"--on real:{path}: cannot be read ({error}). Give the published real.json.") from error
    lists = isinstance(found, list) and all(isinstance(it, list) for it in found)
    if not lists or not all(type(label) is int for it in found for label in it):
        raise InputError(f"--on real:{path}: is not a list of lists of classes. Give the published real.json.")
    odd = next((label for it in found for label in it if not 0 <= label < classes), None)
    if odd is not None:
        raise InputError(f"--on real:{path}: names the class {odd}; the network has 0 to {classes - 1}. Give its own.")
    return found


def of_files(names: Sequence[str], labels: Labels) -> list[list[int]]:
    """The classes of the images in files of such ``names``. ``InputError`` for a name without a known number."""
    found = []
    for name in names:
        number = _NUMBER.search(name.rpartition("/")[2])
        if number is None or not 1 <= int(number[1]) <= len(labels):
            raise InputError(
                f"{name}: is none of the {len(labels):,} images of --on real. Expected ImageNet's validation images, "
                f"as files or in tars, by their names, such as ILSVRC2012_val_00000001.JPEG."
            )
        found.append(list(labels[int(number[1]) - 1]))
    return found
