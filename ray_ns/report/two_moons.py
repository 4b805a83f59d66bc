"""What ``ray-ns two-moons`` finds: a row per variant, as JSON, and the decision regions of the first seed as a picture.

The command trains, so it is an experiment and a report at once; it needs neither a run nor Ray.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ray_ns.errors import InputError
from ray_ns.methods.two_moons import VARIANTS, Settings, Trained, Variant, train
from ray_ns.report.drawing import INK, PALE, Drawing

SOLVED = 0.97  # the accuracy that counts as having found the moons
NAMES = ("two-moons.svg", "two-moons.png")
COLUMNS, SIDE, TALL, GAP, HEAD = 4, 224, 180, 12, 40
CELLS = (112, 90)  # of a decision region, across and down
SHOWN = 500  # points of the 2,000 that are drawn
REGIONS, POINTS = ("#fbe3d0", "#d6e6f5"), ("#c8691e", "#2f6fb0")


@dataclass(frozen=True)
class Row:
    """A variant, what it came to on every seed, and the seconds that it took."""

    variant: Variant
    trained: Trained
    seconds: float

    def as_json(self) -> dict[str, Any]:
        accuracy = self.trained.accuracy
        return asdict(self.variant) | {
            "accuracy": accuracy.tolist(),
            "mean": accuracy.mean().item(),
            "min": accuracy.min().item(),
            "solved": int((accuracy >= SOLVED).sum()),
            "seconds": round(self.seconds, 1),
        }


def rows(seeds: Sequence[int], settings: Settings, told: Callable[[str], None]) -> Iterator[Row]:
    """Train one variant after the other. ``told`` hears how each ended."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on matrices so small the others only wait
    try:
        for variant in VARIANTS:
            begun = time.monotonic()
            row = Row(variant, train(variant, seeds, settings), time.monotonic() - begun)
            told(f"{variant.name}: {100 * row.trained.accuracy.mean().item():.1f} % ({row.seconds:.0f} s)")
            yield row
    finally:
        torch.set_num_threads(threads)


def opened(folder: str) -> Path:
    """The folder for the pictures, made where it is not there. Raises ``InputError`` where it cannot be."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            (path / name).open("ab").close()
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: the pictures cannot be written there: {error}. Give another folder.") from None
    return path


def write(folder: Path, found: Sequence[Row], seeds: Sequence[int]) -> list[str]:
    """Write the picture as SVG and as PNG; their paths."""
    drawn = picture(found, seeds)
    (folder / NAMES[0]).write_text(drawn.svg())
    (folder / NAMES[1]).write_bytes(drawn.png())
    return [str(folder / name) for name in NAMES]


def picture(found: Sequence[Row], seeds: Sequence[int]) -> Drawing:
    """A panel per variant: which class the network of the first seed gives each place, its points, the labelled six."""
    lines = -(-len(found) // COLUMNS)
    drawing = Drawing(COLUMNS * (SIDE + GAP) + GAP, lines * (TALL + HEAD + GAP) + GAP)
    for at, row in enumerate(found):
        left, top = GAP + at % COLUMNS * (SIDE + GAP), GAP + at // COLUMNS * (TALL + HEAD + GAP)
        first, mean = row.trained.accuracy[0].item(), row.trained.accuracy.mean().item()
        drawing.text((left, top + 13), row.variant.name, 13)
        drawing.text((left, top + 30), f"seed {seeds[0]}: {100 * first:.1f} %; mean: {100 * mean:.1f} %", 11, PALE)
        _panel(drawing, row.trained, left, top + HEAD)
    return drawing


def _panel(drawing: Drawing, trained: Trained, left: float, top: float) -> None:
    points, moons, labelled = (it[0] for it in (trained.data.points, trained.data.moons, trained.data.labelled))
    low, high = points.amin(0) - 0.3, points.amax(0) + 0.3
    across, down = CELLS
    wide, tall = SIDE / across, TALL / down
    grid = torch.cartesian_prod(
        high[1] - (torch.arange(down) + 0.5) / down * (high[1] - low[1]),
        low[0] + (torch.arange(across) + 0.5) / across * (high[0] - low[0]),
    ).flip(1)
    classes = trained.classes(0, grid).view(down, across).tolist()
    drawing.boxes([(left, top, SIDE, TALL)], REGIONS[0])
    drawing.boxes([(left + x * wide, top + y * tall, n * wide, tall) for x, y, n in _runs(classes)], REGIONS[1])
    places = (points - low) / (high - low) * torch.tensor([SIDE, -TALL]) + torch.tensor([left, top + TALL])
    every = max(1, len(points) // SHOWN)
    for moon in (0, 1):
        drawing.dots(_pairs(places[moons == moon][::every]), 1.2, POINTS[moon])
    for moon in (0, 1):
        own = labelled[moons[labelled] == moon]
        drawing.dots(_pairs(places[own]), 6, INK)
        drawing.dots(_pairs(places[own]), 4.5, POINTS[moon])


def _runs(classes: Sequence[Sequence[int]]) -> Iterator[tuple[int, int, int]]:
    """Where class 1 stands in a grid: column, row, and how many in a line."""
    for y, line in enumerate(classes):
        x = 0
        while x < len(line):
            end = x
            while end < len(line) and line[end]:
                end += 1
            if end > x:
                yield x, y, end - x
            x = end + 1


def _pairs(places: torch.Tensor) -> list[tuple[float, float]]:
    return [(x, y) for x, y in places.tolist()]
