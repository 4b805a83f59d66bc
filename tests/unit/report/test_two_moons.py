"""``ray-ns two-moons``: what it prints, and its pictures; a few steps."""

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.ImageColor import getrgb
from support.in_process import Call

from ray_ns.errors import InputError
from ray_ns.methods.two_moons import VARIANTS, Moons, Trained
from ray_ns.report import two_moons

SHORT = ("--seeds", 2, "--steps", 3)


def test_the_command_prints_the_settings_a_row_per_variant_and_where_the_pictures_are(
    ray_ns: Call, tmp_path: Path
) -> None:
    left = ray_ns("two-moons", *SHORT, "-o", tmp_path / "new/pictures")
    assert left.code == 0
    assert "batch 128, steps 3, sigma 0.2" in left.out
    assert all(it.name.split(":")[0] in left.out for it in VARIANTS)
    assert f"picture: {tmp_path}/new/pictures/two-moons.png" in left.out
    assert left.err.count("\n") == len(VARIANTS)
    ElementTree.parse(tmp_path / "new/pictures/two-moons.svg")
    assert Image.open(tmp_path / "new/pictures/two-moons.png").width > 900


def test_for_machines(ray_ns: Call) -> None:
    left = ray_ns("two-moons", *SHORT, "--json")
    found = json.loads(left.out)
    assert found["settings"]["steps"] == 3
    assert found["seeds"] == [0, 1]
    assert [it["name"] for it in found["variants"]] == [it.name for it in VARIANTS]
    for it in found["variants"]:
        assert len(it["accuracy"]) == 2
        assert it["min"] == min(it["accuracy"])
        assert it["mean"] == pytest.approx(sum(it["accuracy"]) / 2)
    assert found["pictures"] == []
    assert [json.loads(line)["event"] for line in left.err.splitlines()] == ["variant"] * len(VARIANTS)


def test_a_folder_that_cannot_be_written_is_refused_before_the_training(ray_ns: Call, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        two_moons.opened(str(tmp_path / "file/below"))
    left = ray_ns("two-moons", "-o", tmp_path / "file/below")
    assert left.code == 2
    assert left.err.count("\n") == 1
    assert ray_ns("two-moons", "--seeds", 0).code == 2


def test_a_panel_has_the_regions_the_points_and_the_labelled_ones() -> None:
    """A network that says 1 to the right of x = 0, and six points."""
    points = torch.tensor([[[-1.0, 0.0], [-1.0, 1.0], [-0.5, 0.5], [1.0, 0.0], [1.0, 1.0], [0.5, 0.5]]])
    data = Moons(points, torch.tensor([[0, 0, 0, 1, 1, 1]]), torch.tensor([[0, 3]]))
    weights = [torch.tensor([[[-1.0, 1.0], [0.0, 0.0]]]), torch.zeros(1, 1, 2)]
    trained = Trained(torch.tensor([1.0]), weights, data)
    drawing = two_moons.picture([two_moons.Row(VARIANTS[0], trained, 1.0)], [7])
    pixels = np.asarray(Image.open(io.BytesIO(drawing.png())).convert("RGB")).astype(int)
    top, left = two_moons.GAP + two_moons.HEAD + 5, two_moons.GAP
    assert (pixels[top, left + 5] == getrgb(two_moons.REGIONS[0])).all()
    assert (pixels[top, left + two_moons.SIDE - 5] == getrgb(two_moons.REGIONS[1])).all()
    assert "seed 7: 100.0 %; mean: 100.0 %" in drawing.svg()
    for moon in (0, 1):
        near = np.abs(pixels - getrgb(two_moons.POINTS[moon])).sum(-1) < 12
        columns = np.nonzero(near.any(0))[0]
        middle = left + two_moons.SIDE / 2
        assert (columns < middle).all() if moon == 0 else (columns > middle).all()


def test_a_count_of_seeds_that_solve_it() -> None:
    data = Moons(torch.zeros(3, 1, 2), torch.zeros(3, 1, dtype=torch.int64), torch.zeros(3, 0, dtype=torch.int64))
    row = two_moons.Row(VARIANTS[0], Trained(torch.tensor([0.97, 0.969, 1.0]), [], data), 2.04).as_json()
    assert (row["solved"], row["seconds"]) == (2, 2.0)
