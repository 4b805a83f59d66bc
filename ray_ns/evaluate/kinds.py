"""The kinds of suites: which figures each gives, and the one value per image by which two networks are compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_ns.evaluate import corruptions, flips, imagenet, perturbations, published
from ray_ns.evaluate.figures import Judged, figures, mean, share
from ray_ns.evaluate.paired import paired
from ray_ns.evaluate.suites import (
    AMONG,
    CLEAN,
    CORRUPTIONS,
    FGSM,
    PERTURBATIONS,
    PGD,
    PUBLISHED,
    REAL,
    among_of,
    corruption_of,
    perturbation_of,
)
from ray_ns.evaluate.verdict import by_images, word

Views = Mapping[str, Judged]  # the same images in every view, in one order
Names = Sequence[str] | None  # of all classes


@dataclass(frozen=True)
class Kind:
    """A kind of suites.

    ``figures``: of the views, the number of classes and, where they are known, their names, JSON values. ``values``:
    one per image, bool or float in 0..1 (n,), whose mean is the kind's ``headline``. ``higher``: whether more of it is
    better.
    """

    headline: str
    figures: Callable[[Views, int, Names], dict[str, Any]]
    values: Callable[[Views], np.ndarray]
    higher: bool = True


def difference(first: np.ndarray, second: np.ndarray, higher: bool, exact: bool = True) -> dict[str, Any]:
    """``first`` - ``second``, values of a kind on the same images, in points with its 95 % interval, and a verdict.

    Of no image the points are None.
    Of bool values as ``evaluate.paired`` has it, with McNemar's ``p``; else of the mean of the images' differences.
    ``exact``: whether the verdict asks the images too (``evaluate.verdict.by_images``); False up to FORMAT 4.
    """
    images = len(first)
    found: dict[str, Any] = {"images": images}
    if first.dtype == bool and images:
        pair = paired(first, second)
        found |= {"points": pair.difference, "interval": [pair.low, pair.high], "p": round(pair.p, 6)}
    else:
        of = mean(first.astype(float) - second.astype(float), -1.0)
        found |= {"points": of["value"], "interval": of["interval"], "p": None}
    found["points"] = None if found["points"] is None else round(100 * found["points"], 4)
    found["interval"] = found["interval"] and [round(100 * it, 4) for it in found["interval"]]
    low, high = found["interval"] or (-1, 1)
    winning = int((first > second).sum() if low > 0 else (first < second).sum())
    beyond = by_images(found["p"], winning) or not exact
    told = word(low, high, beyond) if higher else word(-high, -low, beyond)
    return found | {"verdict": f"{told} on {images:,} images" if told == "cannot tell" else told}


def _one(views: Views) -> Judged:
    (found,) = views.values()
    return found


def _corrupted(views: Views, classes: int, names: Names) -> dict[str, Any]:
    """Errors of each corruption by severity, and their means.

    ``error``: the mean of the 15 of ImageNet-C, with the interval by images; ``error_all``: of all that there are.
    ``mce``: normalised by AlexNet's errors on ImageNet-C; None where the images are not ImageNet's by their classes.
    """
    by_name: dict[str, list[float]] = {}
    for view, judged in views.items():
        found = corruption_of(view)
        assert found is not None, "every view is a corruption"
        by_name.setdefault(found[1], []).append(round(1 - float(judged.right.mean()), 6))
    of, _, _ = corruption_of(next(iter(views))) or ("", "", 0)
    means = {name: float(np.mean(errors)) for name, errors in by_name.items()}
    of_15 = mean(1 - _right_of_common(views))
    normalised = of != corruptions.CIFAR and imagenet.its_own(names)
    return {
        "images": len(next(iter(views.values())).truth),
        "unreadable": int((next(iter(views.values())).label < 0).sum()),
        "variant": of,
        "error": of_15["value"],
        "error_interval": of_15["interval"],
        "error_all": round(float(np.mean([*means.values()])), 6),
        "corruptions": by_name,
        "left_out": [it for it in (*corruptions.COMMON, *corruptions.EXTRA) if it not in by_name],
        "mce": round(corruptions.mce(means), 6) if normalised else None,
    }


def _published(views: Views, classes: int, names: Names) -> dict[str, Any]:
    """The same of published images. ``left_out``: corruptions, or ``fog:3``, severities, that are not there.

    The means are of what is there; without all of the 15 at every severity there is no ``mce``.
    """
    left_out = published.left_out(views)
    found = _corrupted(views, classes, None if published.lacks_common(left_out) else names)
    unreadable = np.any([judged.label < 0 for judged in views.values()], 0)
    return found | {"unreadable": int(unreadable.sum()), "crop": published.CROP, "left_out": left_out}


def _right_of_common(views: Views) -> np.ndarray:
    """Of each image the share of the 15 corruptions at all severities in which it is right."""
    common = [
        judged.right for view, judged in views.items() if (corruption_of(view) or ("", ""))[1] in corruptions.COMMON
    ]
    return np.mean(common, 0)


def _perturbed(views: Views, classes: int, names: Names) -> dict[str, Any]:
    """Flip rates of the images that can be read, 0..1, and the distances of the top 5 (None with few classes).

    ``flips``, ``top5_distance``: the means of the ten, the former with the interval by images. ``mfr``: the former
    normalised by AlexNet's on ImageNet-P; None where the images are not ImageNet's by their classes. The distance stays
    as it is: AlexNet's of each perturbation, which mT5D would take, are in no source that is at hand.
    """
    by_name: dict[str, dict[str, Any]] = {}
    of = ""
    for view, judged in views.items():
        of, name = perturbation_of(view) or ("", "")
        top, noise = _frames(judged), name in perturbations.NOISE
        far = float(flips.top5_distance(top, noise).mean()) if classes > flips.TOP and len(top) else None
        rate = float(flips.flips(top, noise).mean()) if len(top) else None
        by_name[name] = {"flips": _rounded(rate), "top5_distance": _rounded(far)}
    of_all = mean(_flips(views))
    first = next(iter(views.values()))
    normalised = of != perturbations.CIFAR and imagenet.its_own(names) and of_all["value"] is not None
    distances = [it["top5_distance"] for it in by_name.values()]
    return {
        "images": len(first.truth),
        "unreadable": int((first.label < 0).sum()),
        "variant": of,
        "flips": of_all["value"],
        "flips_interval": of_all["interval"],
        "top5_distance": None if None in distances else _rounded(float(np.mean(distances))),
        "perturbations": by_name,
        "mfr": round(flips.mfr({name: it["flips"] for name, it in by_name.items()}), 6) if normalised else None,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _frames(judged: Judged) -> np.ndarray:
    assert judged.frames is not None, "every view is a sequence"
    return judged.frames[judged.label >= 0]


def _flips(views: Views) -> np.ndarray:
    """Of each readable image the mean flip rate of all perturbations."""
    rates = [
        flips.flips(_frames(judged), (perturbation_of(view) or ("", ""))[1] in perturbations.NOISE)
        for view, judged in views.items()
    ]
    return np.mean(rates, 0)


def _shown_once(views: Views, classes: int, names: Names) -> dict[str, Any]:
    """The figures of the one view."""
    (view,) = views
    among = among_of(view, classes)
    return figures(_one(views), classes, None if among is None else int(among.sum()))


def _reassessed(views: Views, classes: int, names: Names) -> dict[str, Any]:
    """Top-1 by ReaL labels, of the images that have any."""
    judged = _one(views)
    right = _accepted(views)
    left_out = len(judged.truth) - len(right)
    found = {"images": len(right), "left_out": left_out, "unreadable": int((judged.label < 0).sum())}
    return found | share("top1", right) | {"top5": None, "calibration_error": None, "nll": None}


def _accepted(views: Views) -> np.ndarray:
    accepted = _one(views).accepted
    assert accepted is not None, "the rows have such labels"
    return accepted[accepted >= 0] == 1


_ONE_VIEW = Kind("top1", _shown_once, lambda views: _one(views).right)
KINDS = {
    **dict.fromkeys((CLEAN, AMONG, FGSM, PGD), _ONE_VIEW),
    REAL: Kind("top1", _reassessed, _accepted),
    CORRUPTIONS: Kind("error", _corrupted, lambda views: 1 - _right_of_common(views), higher=False),
    PUBLISHED: Kind("error", _published, lambda views: 1 - _right_of_common(views), higher=False),
    PERTURBATIONS: Kind("flips", _perturbed, _flips, higher=False),
}
