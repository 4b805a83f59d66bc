"""ImageNet-C as it is published: the same images in a folder for each corruption and severity.

Expected is FOLDER/fog/3/CLASS/*.JPEG, or below the names of the published tars: FOLDER/weather/fog/3/CLASS/*.JPEG. Each
folder of a severity is a corpus of its own, of any kind. Its images are corrupted at the size at which networks see
them, so a network is shown them whole: the authors' CenterCrop(224) of 224 pixels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.formats import folder
from ray_ns.corpora.formats.listing import folders
from ray_ns.corpora.formats.place import Kind, Place
from ray_ns.errors import InputError
from ray_ns.evaluate.corruptions import COMMON, EXTRA, PUBLISHED, SEVERITIES
from ray_ns.evaluate.suites import Suite, corruption, corruption_of

TARS = ("blur", "digital", "extra", "noise", "weather")
CROP = "whole"  # what is seen of an image: the largest square in its middle, resized to the network's size
NAMED = 5  # folders that an error names


def found(suite: Suite) -> Suite:
    """The suite with a view for each severity that lies in its folder, those of one corruption side by side.

    Raises ``InputError`` where there is none of the 15, or one lies there twice.
    """
    place = Place.of(suite.source)
    here = folders(place)
    lie: dict[str, list[str]] = {}
    for above in ("", *(f"{it}/" for it in TARS if it in here)):
        for name in folders(place, above) if above else here:
            lie.setdefault(name, []).append(above + name)
    views: dict[str, str] = {}
    for name in (*COMMON, *EXTRA):
        if len(lie.get(name, [])) > 1:
            raise InputError(f"--on {suite.name}: {name} lies in {' and in '.join(lie[name])}. Remove one of them.")
        severities = folders(place, lie[name][0]) if name in lie else []
        for severity in SEVERITIES:
            if str(severity) in severities:
                views[corruption(PUBLISHED, name, severity)] = _below(suite.source, f"{lie[name][0]}/{severity}")
    if not any(_place(view)[0] in COMMON for view in views):
        held = ", ".join(here[:NAMED]) + (" ..." if len(here) > NAMED else "")
        raise InputError(
            f"--on {suite.name}: no folder such as gaussian_noise/1 or noise/gaussian_noise/1 lies in {suite.source}, "
            f"{f'which holds the folders {held}' if held else 'which holds no folder'}. Unpack the published tars into "
            f"one folder and give that; arrays (.npy) are to be converted first (docs/design/evaluation.md)."
        )
    return replace(suite, views=tuple(views), folders=tuple(views.values()))


def same_images(suite: Suite, corpora: Sequence[Corpus], classes: int) -> int:
    """How many images each folder has. ``InputError`` where two folders do not have the same.

    By the names of image files; of other corpora by their labels in order, since rows have no names.
    """
    first = _rows(corpora[0], classes)
    for place, corpus in zip(suite.folders[1:], corpora[1:], strict=True):
        rows = _rows(corpus, classes)
        if rows == first:
            continue
        differ = (f"{one} and {other}" for one, other in zip(first, rows, strict=False) if one != other)
        raise InputError(
            f"--on {suite.name}: {place} has other images than {suite.folders[0]}: {len(rows):,} and {len(first):,}, "
            f"the first that differ are {next(differ, 'the last ones')}. Every severity has the same images in the "
            f"same order: unpack it anew, or move its folder elsewhere to leave it out."
        )
    return len(first)


def left_out(views: Iterable[str]) -> list[str]:
    """The corruptions that are not among ``views``, and the severities (``fog:3``) of those that are there in part."""
    there: dict[str, set[int]] = {}
    for name, severity in map(_place, views):
        there.setdefault(name, set()).add(severity)
    missing = []
    for name in (*COMMON, *EXTRA):
        lacking = [it for it in SEVERITIES if it not in there.get(name, ())]
        missing += [name] if name not in there else [f"{name}:{it}" for it in lacking]
    return missing


def lacks_common(missing: Iterable[str]) -> bool:
    """Whether something ``left_out`` is of the 15 corruptions that mCE is made of."""
    return any(it.partition(":")[0] in COMMON for it in missing)


def _place(view: str) -> tuple[str, int]:
    found = corruption_of(view)
    assert found is not None, "every view is a corruption"
    return found[1:]


def _rows(corpus: Corpus, classes: int) -> list[str] | list[int]:
    """What tells the images of a corpus apart, in order."""
    if corpus.kind is Kind.FOLDER:
        return [it.path for shard in corpus.shards for it in folder.unpack(shard.files)]
    labels: list[int] = np.concatenate(corpus.labels(classes)).tolist()
    return labels


def _below(root: str, path: str) -> str:
    """A folder below a place; a URL's settings (?region=...) stay behind it."""
    place, mark, settings = root.partition("?") if "://" in root else (root, "", "")
    return f"{place.rstrip('/')}/{path}{mark}{settings}"
