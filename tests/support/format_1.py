"""The runs in FORMAT 1 that are kept as test data (``tests/format_1/README.md``)."""

import json
import tarfile
from pathlib import Path
from typing import Any

RUNS = Path(__file__).parents[1] / "format_1"


def unpack(folder: Path) -> Path:
    """``config.yaml``, ``data/``, ``finished/`` and ``half/`` in ``folder``, with the times that their files had."""
    with tarfile.open(RUNS / "runs.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def computes_as_theirs() -> bool:
    """Whether this machine gives the bytes of the one that made the runs: the same processor and torch."""
    import torch

    found = {
        "processor": torch.cpu.get_capabilities().get("cpu_name"),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": torch.cpu.get_capabilities().get("avx512_bf16", False),
        "torch": torch.__version__.partition("+")[0],
    }
    return bool(found == json.loads((RUNS / "machine.json").read_text()))


def plans(run: Path) -> dict[str, dict[str, Any]]:
    """What each stage of a run was made from, by its place."""
    return {
        path.parent.relative_to(run).as_posix(): json.loads(path.read_bytes())["inputs"]
        for path in sorted(run.rglob("plan.json"))
    }
