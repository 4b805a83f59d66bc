"""What FixRes did to a network: clean and shifted images, before and after, beside its control.

A **look** is a network on images of one size: ``before`` as it was, at the train size; ``untuned`` the same at the test
size; ``tuned`` the corrected one there; ``control`` one that was corrected in the same way at the train size.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ray_ns.evaluate import corruptions
from ray_ns.evaluate.kinds import difference
from ray_ns.evaluate.suites import CLEAN, corruption

BEFORE, UNTUNED, TUNED, CONTROL = "before", "untuned", "tuned", "control"
CALLED = {
    BEFORE: "as trained",
    UNTUNED: "larger images alone",
    TUNED: "corrected",
    CONTROL: "control: corrected at the train size",
}
ON = VALIDATION, TEST, SHIFTED = "validation", "test", "shifted"
# One corruption of each of ImageNet-C's families: noise, blur, weather, digital. At the middle one of five severities.
SHIFTS, SEVERITY = ("gaussian_noise", "defocus_blur", "fog", "contrast"), 3
NOT_MEASURED = "not measured"
SEEN = (VALIDATION, TEST, *SHIFTS)  # what a look has figures of
# What is told of: the corrected network against another, on what. Test images choose nothing.
ASKED = (
    *((BEFORE, on) for on in ON),
    *((UNTUNED, on) for on in (TEST, SHIFTED)),
    *((CONTROL, on) for on in (TEST, SHIFTED)),
)
Right = Mapping[str, np.ndarray]  # of one look: which images are right, bool (n,), by ``VALIDATION``, ``TEST``, a shift


def views(train: int) -> dict[str, tuple[str, str]]:
    """By what it is called: the corpus and the view of each thing that a look has figures of.

    Corruptions are made of the pixels that a network sees, with the constants for images of ``train`` pixels at both
    sizes. Raises ``InputError`` where their code is not installed.
    """
    of = corruptions.variant(train)
    clean = {name: (name, CLEAN) for name in (VALIDATION, TEST)}
    return clean | {name: (TEST, corruption(of, name, SEVERITY)) for name in SHIFTS}


def outcome(looks: Mapping[str, Right], sizes: Mapping[str, int], exact: bool = True) -> dict[str, Any]:
    """Top-1 (0..1; None of no image) of each look, the corrected network against the others, and which ``goes_on``.

    That is the corrected one, unless it is ``worse`` than the one before on the validation images. ``sizes``: of the
    images of each look, pixels. ``exact``: see ``kinds.difference``. JSON values.
    """
    found = {look: {"size": sizes[look], **_top1(right)} for look, right in looks.items()}
    differences = [
        {"against": other, "on": on}
        | difference(_values(looks[TUNED], on), _values(looks[other], on), higher=True, exact=exact)
        for other, on in ASKED
        if other in looks
    ]
    worse = differences[0]["verdict"] == "worse"
    return {"looks": found, "differences": differences, "goes_on": BEFORE if worse else TUNED}


def in_words(found: Mapping[str, Any]) -> list[str]:
    """A line of each look, in the order of ``CALLED``, one of each difference, one of what goes on."""
    lines = [
        f"{CALLED[look]}, at {it['size']} px: top-1 {_share(it[VALIDATION])} on validation, {_share(it[TEST])} on "
        f"test, {_share(it[SHIFTED])} shifted ({', '.join(f'{name} {_share(it[name])}' for name in SHIFTS)})"
        for look, it in in_order(found)
    ]
    lines += [
        f"corrected against {CALLED[it['against']]}, {it['on']}: {_difference(it)}" for it in found["differences"]
    ]
    if found["goes_on"] == TUNED:
        return [*lines, "the corrected network goes on"]
    return [*lines, "the corrected network is worse on the validation images: the one before it goes on"]


def in_order(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The looks of an outcome with their figures, in the order of ``CALLED``, whatever order JSON gave them."""
    # An outcome that an earlier version has committed has 0 where there are no images.
    none = {it["on"] for it in found["differences"] if not it["images"]}
    none |= {*SHIFTS} if SHIFTED in none else set()
    looks = {look: it | dict.fromkeys(none) for look, it in found["looks"].items()}
    return [(look, looks[look]) for look in CALLED if look in looks]


def _difference(it: Mapping[str, Any]) -> str:
    if not it["images"]:
        return NOT_MEASURED
    low, high = it["interval"] or (-100.0, 100.0)
    return f"{it['points']:+.1f} points (95 %: {low:+.1f} to {high:+.1f}): {it['verdict']}"


def _share(top1: float | None) -> str:
    return NOT_MEASURED if top1 is None else f"{top1:.1%}"


def _top1(right: Right) -> dict[str, float | None]:
    return {name: _mean(_values(right, name)) for name in (*ON, *SHIFTS)}


def _values(right: Right, on: str) -> np.ndarray:
    """One value per image: whether it is right, or of the shifts how often, 0..1."""
    return right[on] if on != SHIFTED else np.mean([right[name] for name in SHIFTS], axis=0)


def _mean(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 6) if len(values) else None
