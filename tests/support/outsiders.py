"""Other programs that read what is left behind, each in a fresh process that imports nothing of ray_ns."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

DOCUMENT = Path(__file__).parents[2] / "docs/FILES.md"

# Each takes paths of Parquet files, reads all of them as one table, and gives its rows as mappings.
ROWS = {
    "DuckDB": """
import duckdb
found = duckdb.read_parquet(paths)
rows = [dict(zip(found.columns, row)) for row in found.fetchall()]
""",
    "Polars": """
import polars
rows = polars.scan_parquet(paths).collect().to_dicts()
""",
    "pandas": """
import pandas
frame = pandas.concat([pandas.read_parquet(path) for path in paths])
rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
""",
    "datasets": """
import datasets
rows = datasets.load_dataset("parquet", data_files=paths, split="train", cache_dir=cache).to_list()
""",
}

FOLDER = """
import datasets
folder, config, split = paths
found = datasets.load_dataset(folder, config or None, split=split, cache_dir=cache)
rows = found.to_list()
extra = {"features": {name: repr(it) for name, it in found.features.items()}}
extra["names"] = {name: it.names for name, it in found.features.items() if isinstance(it, datasets.ClassLabel)}
image = found.features.get("image")
if isinstance(image, datasets.Image):
    extra["sizes"] = [row["image"].size for row in found]
    rows = [{name: value for name, value in row.items() if name != "image"} for row in rows]
"""

_PROGRAM = """
import json, sys
cache, *paths = sys.argv[1:]
extra = {{}}
{code}
assert not any(name.partition(".")[0] == "ray_ns" for name in sys.modules)
plain = lambda it: it.tolist() if hasattr(it, "tolist") else it.hex() if isinstance(it, bytes) else str(it)
print(json.dumps({{"rows": rows, **extra}}, default=plain))
"""


def rows_of(program: str, paths: Sequence[Path], cache: Path) -> list[dict[str, Any]]:
    """All rows of Parquet files, as ``program`` reads them."""
    found = _run(ROWS[program], [str(path) for path in paths], cache)
    return list(found["rows"])


def loaded(folder: Path, config: str, split: str, cache: Path) -> dict[str, Any]:
    """``datasets.load_dataset(folder, config, split=split)``: ``rows``, ``features``, ``names``, ``sizes``."""
    return _run(FOLDER, [str(folder), config, split], cache)


def parts_of(run: Path, place: str, name: str) -> list[Path]:
    """The files of that name that the commit of a stage names."""
    commit = json.loads((run / place / "commit.json").read_text())
    return [run / part["objects"][name]["key"] for part in commit["parts"]]


def rows_here(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """All rows of Parquet files, as pyarrow reads them."""
    return pa.concat_tables([pq.read_table(path) for path in paths]).to_pylist()


def queries() -> list[str]:
    """The queries in ``docs/FILES.md``."""
    return re.findall(r"^```sql\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


def _run(code: str, words: Sequence[str], cache: Path) -> dict[str, Any]:
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | quiet
    command = [sys.executable, "-c", _PROGRAM.format(code=code), str(cache), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))
