"""The summary of an ingest, over all generations of its source."""

import pytest

from ray_ns.report.terminal.ingest import as_json, show
from ray_ns.store.commit import Commit, Part, StoredObject

COUNTS = {"read": 10, "images": 6, "bytes": 600_000, "duplicates": 1, "leaks": 2}
GUARD = {"images": 50, "unreadable": 0, "distance": 0.3}


def commit(number: int, quarantine: dict[str, int]) -> Commit:
    objects = {"images.parquet": StoredObject(f"ingest-{number:04d}/data/images.parquet", "0", 9)}
    parts = (Part(objects, {}), Part({}, {}))
    return Commit("", "", "", parts, {**COUNTS, "quarantine": quarantine, "keep_out": GUARD})


def test_generations_add_up_and_every_image_read_is_accounted_for(capsys: pytest.CaptureFixture[str]) -> None:
    commits = [commit(1, {"empty": 1}), commit(2, {"empty": 0, "truncated": 1})]
    found = as_json(commits)
    assert found["read"] == found["images"] + found["duplicates"] + found["leaks"] + sum(found["quarantine"].values())
    assert found["quarantine"] == {"empty": 1, "truncated": 1}
    assert found["shards"] == ["ingest-0001/data/images.parquet", "ingest-0002/data/images.parquet"]
    show("packed", commits)
    said = capsys.readouterr().out
    for words in ("12 of 20 images packed in 2 shards (1.2 MB)", "2 left out as copies", "4 left out as near-copies"):
        assert words in said
    assert "2 unreadable: empty 1, truncated 1" in said
