"""What a finished run leaves behind, in the hands of programs that know nothing of ray-ns."""

from pathlib import Path

import duckdb
import pytest
from support.outsiders import ROWS, loaded, parts_of, queries, rows_here, rows_of

pytestmark = pytest.mark.ray

TABLES = {
    "round-1-labels": ("rounds/1/label", {"train": "labels.parquet"}),
    "round-1-selection": ("rounds/1/select", {"train": "selection.parquet"}),
    "round-1-predictions": ("rounds/1/evaluate", {name: f"{name}.parquet" for name in ("validation", "test")}),
    "round-0-predictions": ("rounds/0/evaluate", {name: f"{name}.parquet" for name in ("validation", "test")}),
}


@pytest.mark.parametrize("program", ROWS)
def test_they_read_each_table_of_the_run(finished, program: str, tmp_path: Path) -> None:
    for place, splits in list(TABLES.values())[:3]:
        paths = parts_of(finished.run, place, list(splits.values())[-1])
        assert rows_of(program, paths, tmp_path) == rows_here(paths)


@pytest.mark.parametrize("config", TABLES)
def test_the_run_loads_by_its_card(finished, config: str, tmp_path: Path) -> None:
    place, splits = TABLES[config]
    for split, name in splits.items():
        found = loaded(finished.run, config, split, tmp_path)
        assert found["rows"] == rows_here(parts_of(finished.run, place, name))


def test_the_predictions_are_what_the_metrics_were_made_of(finished) -> None:
    for row in finished.report["rounds"]:
        predicted = rows_here(parts_of(finished.run, f"{row['round']}/evaluate", "test.parquet"))
        right = sum(it["label"] == it["truth"] for it in predicted)
        assert right / len(predicted) == pytest.approx(row["test_top1"])


def test_the_queries_of_the_document_run(finished) -> None:
    for query in queries():
        assert duckdb.sql(query.replace("RUN/", f"{finished.run}/")).fetchall()
