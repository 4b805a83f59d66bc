"""Labelled images of a tiny run as a folder per class."""

from pathlib import Path

import pyarrow.parquet as pq


def as_class_folders(tiny: Path, folder: Path, per_class: int = 4) -> Path:
    """Test digits as PNGs in one folder per class, ``digit-0`` and so on."""
    table = pq.read_table(tiny.parent / "full/test")
    for number, (image, label) in enumerate(zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True)):
        place = folder / f"digit-{label}"
        place.mkdir(parents=True, exist_ok=True)
        if len(list(place.iterdir())) < per_class:
            (place / f"{number:04d}.png").write_bytes(image)
    return folder
