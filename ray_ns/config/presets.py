"""The configs that come with the package: ``configs/`` of the sources, which the wheel holds as ``ray_ns/presets/``."""

from pathlib import Path

import ray_ns
from ray_ns.errors import InputError

PACKAGE = Path(ray_ns.__file__).parent


def presets(package: Path = PACKAGE) -> dict[str, Path]:
    """The file of each preset by its name, in order; ``package``: the folder of ``ray_ns``."""
    inside, beside = package / "presets", package.parent / "configs"
    folder = inside if inside.is_dir() else beside
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def about(text: str) -> str:
    """What a preset is for: the first paragraph of its header, on one line."""
    lines = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    return " ".join(lines[: lines.index("")] if "" in lines else lines)


def preset(name: str) -> str:
    """The text of a preset. ``InputError`` where there is none of that name."""
    known = presets()
    path = known.get(name.removesuffix(".yaml"))
    if path is None:
        raise InputError(f"config: no preset is called {name!r}. There are {', '.join(known) or 'none'}.")
    return path.read_text(encoding="utf-8")
