"""What ``ray-ns evaluate`` prints of each kind of suites: what was measured, on what, and what was not."""

from typing import Any

import numpy as np
import pytest

from ray_ns.evaluate.corruptions import COMMON
from ray_ns.evaluate.figures import Judged
from ray_ns.evaluate.imagenet import CLASSES
from ray_ns.evaluate.kinds import KINDS, difference
from ray_ns.evaluate.perturbations import TABLE
from ray_ns.evaluate.suites import CORRUPTIONS, PERTURBATIONS, REAL
from ray_ns.report.terminal.evaluation import show


def row(kind: str, views: list[str], size: int | None, names: Any, readable: bool = True) -> dict[str, Any]:
    top = np.tile(np.arange(5), (6, 5, 1))
    judged = Judged(np.zeros(6, int), np.full(6, 0 if readable else -1), np.ones(6), np.zeros(6), top[:, 0], top)
    figures = KINDS[kind].figures(dict.fromkeys(views, judged), CLASSES, names)
    figures |= {} if size is None else {"size": size}
    return {"network": "network", "kind": kind, "folder": kind, "figures": figures}


def rows(size: int | None, names: Any, readable: bool = True) -> list[dict[str, Any]]:
    corrupted = [f"corrupt:imagenet-1.1.5:{name}:{it}" for name in COMMON for it in (1, 2, 3, 4, 5)]
    perturbed = [f"perturb:imagenet-1:{name}" for name in TABLE]
    return [
        row(CORRUPTIONS, corrupted, size, names, readable),
        row(PERTURBATIONS, perturbed, size, names, readable),
    ]


def printed(capsys: pytest.CaptureFixture[str], *found: dict[str, Any], differences: Any = ()) -> str:
    report = {"rows": found, "differences": differences}
    show(report, "out", {"suites": {CORRUPTIONS: "c", PERTURBATIONS: "p"}, "classes": None})
    return capsys.readouterr().out


def test_a_figure_over_alexnets_names_its_images(capsys: pytest.CaptureFixture[str]) -> None:
    from timm.data import ImageNetInfo

    text = printed(capsys, *rows(64, ImageNetInfo().label_names()))
    assert "mCE (imagenet-1.1.5, 64 px), AlexNet is 100" in text
    assert "mFR (imagenet-1, 64 px), AlexNet is 100" in text
    assert "the top-5 distance is not normalised, so it is no mT5D" in text
    assert "px" not in printed(capsys, *rows(None, None)), "an evaluation of an earlier version does not say it"


def test_of_other_classes_there_is_no_such_figure(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *rows(64, [f"product {number}" for number in range(CLASSES)]))
    assert "AlexNet is 100" not in text
    assert "(imagenet-1.1.5, 64 px)" in text
    assert text.count("; not normalised: AlexNet's") == 2


def test_what_no_image_measures_has_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = difference(np.zeros(0), np.zeros(0), False)
    pair = {"folder": PERTURBATIONS, "figure": "flips", "against": "teacher", **nothing}
    text = printed(capsys, rows(64, None, readable=False)[1], differences=[pair])
    lines = {line.rsplit(maxsplit=1)[0].strip(): line.split()[-1] for line in text.splitlines() if line.strip()}
    assert [lines[name] for name in ("tilt", "mean of the ten", "95 % interval")] == ["-"] * 3
    assert "p: flip rate of the student less that of the teacher: not measured" in text


def shown_once(kind: str, unreadable: int, folder: str, left_out: int = 0) -> dict[str, Any]:
    label = np.array([-1] * unreadable + [0] * (6 - unreadable))
    accepted = np.where(np.arange(6) < 6 - left_out, 1, -1) if kind == REAL else None
    top = np.tile(np.arange(5), (6, 1))
    judged = Judged(np.zeros(6, int), label, np.ones(6), np.zeros(6), top, None, accepted)
    figures = KINDS[kind].figures({"clean": judged}, 10, None)
    return {"network": "network", "kind": kind, "folder": folder, "figures": figures}


def told(capsys: pytest.CaptureFixture[str], *found: dict[str, Any]) -> str:
    suites = {it["folder"]: it["folder"] for it in found}
    show({"rows": found, "differences": ()}, "out", {"suites": suites, "classes": None})
    return capsys.readouterr().out


def test_what_unreadable_images_count_as_is_told_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    perturbed, corrupted = rows(64, None, readable=False)[1], rows(64, None, readable=False)[0]
    clean = shown_once("clean", 2, "clean")
    assert (
        "up to 2 images cannot be read: they count as wrong in top-1 and top-5, and in ECE and NLL not at all\n"
        in told(capsys, clean)
    )
    out = told(capsys, perturbed)
    assert "up to 6 images cannot be read: the flip rates leave them out\n" in out
    assert "wrong" not in out
    out = told(capsys, clean, perturbed, shown_once("clean", 0, "more"))
    assert (
        "up to 2 images cannot be read: they count as wrong in top-1 and top-5, and in ECE and NLL not at all\n" in out
    )
    assert "up to 6 images cannot be read: the flip rates leave them out\n" in out
    out = told(capsys, corrupted)
    assert "up to 6 images cannot be read: they count as wrong in the errors\n" in out
    assert "cannot be read" not in told(capsys, shown_once("clean", 0, "clean"))


def test_of_each_suite_by_real_labels_its_own_number_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = shown_once(REAL, 0, "real:a", left_out=2), shown_once(REAL, 1, "real:b", left_out=3)
    out = told(capsys, one, other)
    assert "real:a: 2 images without such labels are left out" in out
    assert "real:b: 3 images without such labels are left out" in out
    assert "up to 1 images cannot be read: they count as wrong by ReaL labels\n" in out
    assert told(capsys, one, {**one, "network": "other"}).count("are left out") == 1, "once of all networks"
