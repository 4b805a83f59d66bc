"""DuckDB, Polars, pandas and datasets read the three files, in processes that do not know this package."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.labelled import labelled_run

from ray_ns.corpora.corpus import Corpus
from ray_ns.export.labels import Labelled, export

NAMES = ['=cmd(); "x".png', "a,b;c.png", "it's.png", "🐱 чат.png", "back\\slash.png", "-1.png", "plain.png"]
COLUMNS = ("path", "image_id", "label_name", "copies", "top_name")
BEGIN = "import json, sys\nfile = sys.argv[1]\nkind = file.rpartition('.')[2]\n"
READERS = {
    "duckdb": """
import duckdb
rows = duckdb.sql(f"SELECT * FROM '{file}'").to_arrow_table().to_pylist()
""",
    "polars": """
import polars
read = {"csv": polars.read_csv, "jsonl": polars.read_ndjson, "parquet": polars.read_parquet}[kind]
rows = read(file).to_dicts()
""",
    "pandas": """
import pandas
read = {"csv": pandas.read_csv, "parquet": pandas.read_parquet, "jsonl": pandas.read_json}[kind]
rows = read(file, **({"lines": True} if kind == "jsonl" else {}))
rows = json.loads(rows.to_json(orient="records"))
""",
    "datasets": """
import datasets
datasets.disable_progress_bars()
name = {"csv": "csv", "jsonl": "json", "parquet": "parquet"}[kind]
rows = datasets.load_dataset(name, data_files=file, split="train", cache_dir=sys.argv[2]).to_list()
""",
}
END = f"print(json.dumps([[row[name] for name in {COLUMNS}] for row in rows]))"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, encode: Callable[..., bytes]) -> Path:
    folder = tmp_path_factory.mktemp("outsiders")
    (folder / "pool").mkdir()
    for name in NAMES:
        (folder / "pool" / name).write_bytes(encode(np.zeros((9, 9), np.uint8)))
    pool = Corpus.scan(str(folder / "pool"), "image", None)
    store, _ = labelled_run(folder / "run", pool, ("cat", 'a "dog"', "owl, snow"))
    for suffix in ("csv", "jsonl", "parquet"):
        export(Labelled.at(store, "rounds/1/label", pool), f"{folder}/labels.{suffix}")
    return folder


@pytest.mark.parametrize("reader", READERS)
def test_they_read_what_was_written(files: Path, tmp_path: Path, reader: str) -> None:
    table = pq.read_table(files / "labels.parquet")
    wanted = [[row[name] for name in COLUMNS] for row in table.to_pylist()]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    for suffix in ("csv", "jsonl", "parquet"):
        command = [sys.executable, "-c", BEGIN + READERS[reader] + END, f"{files}/labels.{suffix}", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        if suffix == "csv":  # where lists are JSON
            found = [[*row[:-1], json.loads(row[-1]) if row[-1] else None] for row in found]
        assert found == wanted, suffix
