"""The select stage over committed label shards: its tasks run in this process, so that no test waits for Ray."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.fan_out import InProcess

from ray_ns.artifacts.labels import LABELS, Labels, label_objects
from ray_ns.artifacts.selection import ENDS, SELECTION, Selection, tables
from ray_ns.config import Config, Select
from ray_ns.engine.run import Run
from ray_ns.engine.stages import select as stage
from ray_ns.errors import InputError, IntegrityError
from ray_ns.labels import files, schema
from ray_ns.labels.selection.terms import of_settings
from ray_ns.observe import Reporter
from ray_ns.report.terminal import selection as report
from ray_ns.store.commit import Commit, Output
from ray_ns.store.lease import Lease
from ray_ns.store.objects import LocalStore

CLASSES = 5
ROWS = 240
PLACE = "rounds/1/select"
# What label files of a run say of themselves: nothing in formats 1 and 2.
FORMAT_3 = files.About(tuple("abcde"), ("pool", "0123"))
FORMATS = pytest.mark.parametrize("about", [None, FORMAT_3], ids=["format 2", "format 3"])
Asked = Callable[..., Commit]


def table_of(rng: np.random.Generator, **columns: Any) -> pa.Table:
    """A label table in which class 4 is nobody's and every 40th image is in quarantine."""
    ids = np.arange(ROWS)
    probabilities = rng.dirichlet([0.3, 0.3, 0.1, 0.05], ROWS).astype(np.float32)
    probabilities = np.concatenate([probabilities, np.zeros((ROWS, 1), np.float32)], 1)
    reasons = ["truncated" if row % 40 == 7 else None for row in ids]
    table = schema.label_table(ids, probabilities, reasons, "top", 3)
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table


def commit_labels(
    store: LocalStore, table: pa.Table, shards: int, checksums: bool = True, about: files.About | None = FORMAT_3
) -> Commit:
    """``table`` as a label commit of so many shards; ``checksums``: False as earlier versions made it."""
    made = Output(store, "rounds/1/label", lambda: None)
    bounds = np.linspace(0, table.num_rows, shards + 1).astype(int)
    for part, (begin, end) in enumerate(itertools.pairwise(bounds)):
        objects, checksum = label_objects(table.slice(begin, end - begin), {}, about)
        made.publish(part, objects, checksum if checksums else {})
    valid = table["label"].drop_null().to_numpy()
    per_class = np.bincount(valid, minlength=CLASSES).tolist()
    bad = table.num_rows - len(valid)
    summary = {"rows": table.num_rows, "per_class": per_class, "quarantine": {"truncated": bad} if bad else {}}
    return made.commit({}, summary, shards)


@pytest.fixture
def select(config: Config, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """``select(store, labels, shards per task, settings...)``: the stage without Ray, tasks in reverse order."""

    def selected(
        store: LocalStore,
        labels: Commit,
        per_task: int = 16,
        place: str = PLACE,
        commits: dict[str, Commit] | None = None,
        **settings: Any,
    ) -> Commit:
        monkeypatch.setattr(stage, "SHARDS_PER_TASK", (per_task, per_task))
        asked = config.model_copy(
            update={
                "select": config.select.model_validate(settings),
                "data": config.data.model_copy(update={"classes": CLASSES}),
            }
        )
        with Run(asked, store, {}, (0,), Lease(store), Reporter("json"), fan_out=InProcess) as run:
            before, chosen = (commits or {}).get("before"), (commits or {}).get("chosen")
            earlier, restricted = before and Labels(before), chosen and Selection(chosen)
            return run.ensure(place, stage.Select(Labels(labels), earlier, restricted)).commit

    return selected


def chosen_of(store: LocalStore, commit: Commit) -> pa.Table:
    stored = [part.objects[SELECTION] for part in commit.parts]
    tables = [schema.from_parquet(it.read(store), it.key) for it in stored]
    extra = {"part", "label_name"}
    tables = [it.drop_columns([name for name in it.column_names if name in extra]) for it in tables]
    return pa.concat_tables(tables).sort_by("image_id")


@FORMATS
@pytest.mark.parametrize("rule", ["paper", "official"])
def test_the_same_labels_in_other_shards_and_tasks_give_the_same_selection(
    tmp_path: Path, rng: np.random.Generator, select: Asked, rule: str, about: files.About | None
) -> None:
    table = table_of(rng)
    found = []
    for number, (shards, run) in enumerate([(1, 1), (6, 1), (6, 4), (11, 3)]):
        store = LocalStore(tmp_path / str(number))
        labels = commit_labels(store, table, shards, about=about)
        commit = select(store, labels, run, rule=rule, per_class=25)
        assert len(commit.parts) == shards + 1
        found.append((chosen_of(store, commit), commit))
    for rows, commit in found[1:]:
        assert rows.equals(found[0][0])
        assert commit.summary == found[0][1].summary
    assert found[1][1].digest == found[2][1].digest, "tasks of other sizes"


@pytest.mark.parametrize("settings", [{"per_class": 9}, {"rule": "official", "per_class": 9}, {"threshold": 0.123}])
def test_a_share_of_the_pool_selects_as_if_the_pool_were_those_images(
    tmp_path: Path, rng: np.random.Generator, select: Asked, settings: dict[str, Any]
) -> None:
    table = table_of(rng)
    asked = of_settings(Select(pool_share=0.4), CLASSES, 0)
    within = asked.drawn(table["image_id"].to_numpy())
    assert 0.3 * ROWS < within.sum() < 0.5 * ROWS
    assert (of_settings(Select(pool_share=0.7), CLASSES, 0).drawn(np.arange(ROWS)) >= within).all(), "shares are nested"
    assert (of_settings(Select(pool_share=0.4), CLASSES, 1).drawn(np.arange(ROWS)) != within).any()
    store, small = LocalStore(tmp_path / "all"), LocalStore(tmp_path / "share")
    whole = commit_labels(store, table, 5)
    select(store, whole, place="rounds/1/before")  # the counts of all labels are there, and do not serve
    found = select(store, whole, 2, **settings, pool_share=0.4)
    only = select(small, commit_labels(small, table.filter(pa.array(within)), 1), **settings)
    assert chosen_of(store, found).equals(chosen_of(small, only))
    for name, value in only.summary["per_class"].items():
        assert found.summary["per_class"][name] == value, name


def test_a_share_that_leaves_nothing_says_so(tmp_path: Path, rng: np.random.Generator, select: Asked) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(InputError, match=r"so confident \(of 0 in select.pool_share = 0.0001 of it\)"):
        select(store, commit_labels(store, table_of(rng), 2), pool_share=0.0001)


@FORMATS
def test_conservation_and_the_labels_are_those_of_the_teacher(
    tmp_path: Path, rng: np.random.Generator, select: Asked, about: files.About | None
) -> None:
    table = table_of(rng)
    store = LocalStore(tmp_path)
    commit = select(store, commit_labels(store, table, 4, about=about), threshold=0.5, per_class=30)
    summary = commit.summary
    candidates = sum(summary["per_class"]["candidates"])
    assert candidates == summary["images"] + sum(summary["dropped"].values())
    assert candidates + sum(summary["quarantine"].values()) == ROWS
    chosen = chosen_of(store, commit)
    labelled = table.drop_columns(["quarantine"]).take(chosen["image_id"])
    assert chosen.drop_columns(["copies"]).cast(labelled.schema).equals(labelled)
    assert np.bincount(chosen["label"], chosen["copies"], CLASSES).tolist() == summary["per_class"]["with_copies"]
    assert set(summary["per_class"]["with_copies"]) == {0, 30}


@pytest.mark.parametrize("edge_rows", [10, 4_000_000])
def test_rows_that_were_set_aside_are_gone_once_the_selection_stands(
    tmp_path: Path, rng: np.random.Generator, select: Asked, monkeypatch: pytest.MonkeyPatch, edge_rows: int
) -> None:
    monkeypatch.setattr(stage.ties, "EDGE_ROWS", edge_rows)
    store = LocalStore(tmp_path)
    aside: list[str] = []
    put = store.put
    monkeypatch.setattr(store, "put", lambda key, data: (aside.append(key), put(key, data))[1])
    labels = commit_labels(store, table_of(rng), 6)
    commit = select(store, labels, 2, per_class=20)
    aside = [key for key in aside if "/undecided/" in key]
    assert len(aside) == 3
    assert all(store.get(key) is None for key in aside)
    # A driver that was killed between the commit and here: the same command tidies up.
    put(aside[0], b"left")
    assert select(store, labels, 2, per_class=20).digest == commit.digest
    assert store.get(aside[0]) is None


@FORMATS
def test_the_tasks_of_a_selection_load_no_pandas(
    tmp_path: Path, rng: np.random.Generator, select: Asked, about: files.About | None
) -> None:
    # It would cost every worker 0.3 s and 40 MB, and each of them imports it in silence on the way to an array.
    store = LocalStore(tmp_path)
    labels = commit_labels(store, table_of(rng), 2, about=about)
    select(store, labels, per_class=20)
    code = """
import sys
import numpy as np
from ray_ns.engine.workers import selecting as tasks
from ray_ns.labels.selection import passes, rules, terms
from ray_ns.seals import seal
from ray_ns.store.commit import find_commit
from ray_ns.store.lease import Holder
from ray_ns.store.objects import open_store
store = open_store(sys.argv[1])
holder = Holder(9, "a test")
store.put("driver/000009.json", seal(vars(holder)))
labels, chosen = find_commit(store, "rounds/1/label"), find_commit(store, "rounds/1/select")
last = chosen.parts[-1]
shards = [tasks.Shard(at, it, it, None) for at, it in enumerate(labels.parts)]
asked = terms.Terms("paper", np.zeros(5, np.float32), np.full(5, 20), True, 0)
quota = rules.quotas(tasks.count(shards, store, asked), asked)
tasks.count_ties(shards, store, quota, asked)
found = tasks.choose(shards, store, passes.bounds(quota, asked), quota, asked, "again", holder)
assert tasks.gathered(tasks.numbered(store, found.undecided), quota).num_rows
tasks.churn(shards, store, 5)
both = zip(labels.parts, chosen.parts)
again = [tasks.Shard(at, it, None, (own, last)) for at, (it, own) in enumerate(both)]
assert tasks.choose(again, store, passes.bounds(quota, asked), quota, asked, "carried", holder).used.any()
assert "pandas" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=120).returncode == 0


def test_a_flipped_bit_in_rows_that_were_set_aside_is_refused(
    tmp_path: Path, rng: np.random.Generator, select: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    put = store.put

    def hurt(key: str, data: bytes) -> None:
        put(key, data if "/undecided/" not in key else bytes([*data[:40], data[40] ^ 1, *data[41:]]))

    monkeypatch.setattr(store, "put", hurt)
    with pytest.raises(IntegrityError, match="undecided"):
        select(store, commit_labels(store, table_of(rng), 6), per_class=20)


def test_a_class_without_a_candidate_is_reported(tmp_path: Path, rng: np.random.Generator, select: Asked) -> None:
    store = LocalStore(tmp_path)
    commit = select(store, commit_labels(store, table_of(rng), 2), quotas={0: 0})
    found = report.as_json(Selection(commit))
    assert found["classes_without_candidates"] == [4]
    assert found["classes_dropped_whole"] == [0]
    assert found["per_class"]["cut"][4] is None
    assert json.loads(json.dumps(found)) == found
    assert any("4" in line and "no image" in line for line in report.words(found))


@pytest.mark.parametrize("wrong", [np.nan, -0.5, 1.5, np.inf])
def test_a_confidence_that_is_none_is_refused_by_name(
    tmp_path: Path, rng: np.random.Generator, select: Asked, wrong: float
) -> None:
    values = table_of(rng)["confidence"].to_pylist()
    values[100] = wrong
    store = LocalStore(tmp_path)
    labels = commit_labels(store, table_of(rng, confidence=pa.array(values, pa.float32())), 3)
    with pytest.raises(InputError, match=r"data/000001-.*expected 0\.\.1.*train it anew"):
        select(store, labels)
    assert not list(store.list(f"{PLACE}/done/"))


def test_labels_are_counted_once_for_all_thresholds_on_the_grid(
    tmp_path: Path, rng: np.random.Generator, select: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, counted = table_of(rng), []
    count = stage.tasks.count
    monkeypatch.setattr(stage.tasks, "count", lambda *args: counted.append(1) or count(*args))
    store, fresh = LocalStore(tmp_path / "a"), LocalStore(tmp_path / "b")
    labels = commit_labels(store, table, 4)
    select(store, labels, threshold=0.3, per_class=20)
    again = select(store, labels, place="again", threshold=0.57, per_class=12)
    assert len(counted) == 1
    same = select(fresh, commit_labels(fresh, table, 4), place="again", threshold=0.57, per_class=12)
    assert again.summary == same.summary
    assert chosen_of(store, again).equals(chosen_of(fresh, same))
    off = select(store, labels, place="off", threshold=0.577, per_class=12)
    assert len(counted) == 3
    assert (chosen_of(store, off)["confidence"].to_numpy() >= np.float32(0.577)).all()


def test_crowded_confidences_give_the_same_selection(
    tmp_path: Path, rng: np.random.Generator, select: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [it if it is None or it < 0.5 else 1.0 for it in table_of(rng)["confidence"].to_pylist()]
    table = table_of(rng, confidence=pa.array(values, pa.float32()))
    found = []
    for name, rows in {"gathered": 10**6, "within one shard": 0}.items():
        monkeypatch.setattr(stage.ties, "EDGE_ROWS", rows)
        store = LocalStore(tmp_path / name)
        found.append(chosen_of(store, select(store, commit_labels(store, table, 6), per_class=9)))
    assert found[0].equals(found[1])
    assert set(found[0]["confidence"].to_pylist()) == {1.0}


def test_a_threshold_that_nothing_reaches_says_so(tmp_path: Path, rng: np.random.Generator, select: Asked) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(InputError, match=r"select\.threshold = 1: no image"):
        select(store, commit_labels(store, table_of(rng), 2), threshold=1.0)


@pytest.mark.parametrize("checksums", [True, False], ids=["of today", "of an earlier version"])
@pytest.mark.parametrize("column", ["confidence", "top_probability"])
def test_a_flipped_bit_in_a_label_shard_is_refused(
    tmp_path: Path, rng: np.random.Generator, select: Asked, column: str, checksums: bool
) -> None:
    store = LocalStore(tmp_path)
    labels = commit_labels(store, table_of(rng), 3, checksums)
    path = store.path(labels.parts[1].objects[LABELS].key)
    data = bytearray(path.read_bytes())
    group = pq.ParquetFile(path).metadata.row_group(0)
    at = next(it for it in map(group.column, range(group.num_columns)) if it.path_in_schema.split(".")[0] == column)
    data[at.data_page_offset + at.total_compressed_size - 1] ^= 1  # the last value: another number, no other error
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="data/000001-"):
        select(store, labels)


def test_shards_that_hold_fewer_confident_labels_than_were_counted_are_refused(
    tmp_path: Path, rng: np.random.Generator, select: Asked
) -> None:
    store = LocalStore(tmp_path)
    counted = commit_labels(store, table_of(rng), 3)
    select(store, counted, per_class=20)
    low = [None if it is None else it / 8 for it in table_of(rng)["confidence"].to_pylist()]
    other = commit_labels(LocalStore(tmp_path / "other"), table_of(rng, confidence=pa.array(low, pa.float32())), 3)
    for part in other.objects():
        store.put(part.key, part.read(LocalStore(tmp_path / "other")))
    with pytest.raises(IntegrityError, match="not those that were counted"):
        select(store, replace(counted, parts=other.parts), place="again", per_class=20)


def test_labels_that_are_not_those_of_the_commit_are_refused(
    tmp_path: Path, rng: np.random.Generator, select: Asked
) -> None:
    store = LocalStore(tmp_path)
    labels = commit_labels(store, table_of(rng), 3)
    with pytest.raises(IntegrityError, match="rounds/1/label"):
        select(store, Commit(labels.stage, "", "", labels.parts[:2], labels.summary))


@FORMATS
def test_new_labels_of_chosen_images_keep_their_copies_and_tell_the_churn(
    tmp_path: Path, rng: np.random.Generator, select: Asked, about: files.About | None
) -> None:
    store = LocalStore(tmp_path)
    first = table_of(rng)
    before = commit_labels(store, first, 4, about=about)
    chosen = select(store, before, per_class=20)
    rows = chosen_of(store, chosen)
    again = table_of(rng, quarantine=first["quarantine"]).filter(pa.compute.is_in(first["image_id"], rows["image_id"]))
    made = Output(store, "rounds/2/label", lambda: None)
    for part, bound in enumerate(range(0, ROWS, ROWS // 4)):
        inside = pa.compute.and_(
            pa.compute.greater_equal(again["image_id"], bound), pa.compute.less(again["image_id"], bound + ROWS // 4)
        )
        made.publish(part, label_objects(again.filter(inside), {}, about)[0], {})
    per_class = np.bincount(again["label"].to_numpy(), minlength=CLASSES).tolist()
    labels = made.commit({}, {"rows": len(again), "per_class": per_class, "quarantine": {}}, 4)
    carried = select(store, labels, place="rounds/2/select", commits={"before": before, "chosen": chosen})
    second = chosen_of(store, carried)
    assert second["image_id"].equals(rows["image_id"])
    assert second["copies"].equals(rows["copies"])
    assert second["label"].equals(again["label"])
    changed = (rows["label"].to_numpy() != second["label"].to_numpy()).sum()
    assert carried.summary["churn"]["changed"] == changed
    assert carried.summary["churn"]["compared"] == len(rows)
    assert carried.summary["rule"] == "carried over"
    assert f"{changed:,} of {len(rows):,} changed" in "\n".join(report.words(report.as_json(Selection(carried))))


def test_the_report_prints_every_class_of_few_and_the_ends_of_many(
    tmp_path: Path, rng: np.random.Generator, select: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    store = LocalStore(tmp_path)
    report.show(Selection(select(store, commit_labels(store, table_of(rng), 2))))
    shown = capsys.readouterr().out
    assert "in quarantine, without a label: truncated 6" in shown
    first_words = [line.split()[0] for line in shown.splitlines() if line.strip()]
    assert {str(label) for label in range(CLASSES)} <= set(first_words)
    assert report.shown(list(range(100))) == [*range(99, 87, -1), *range(11, -1, -1)]


def test_selections_are_plain_parquet_for_everyone(tmp_path: Path, rng: np.random.Generator, select: Asked) -> None:
    store = LocalStore(tmp_path)
    commit = select(store, commit_labels(store, table_of(rng), 3), per_class=20)
    read = [pq.ParquetFile(store.path(part.objects[SELECTION].key)) for part in commit.parts]
    assert read[-1].metadata.num_rows
    for file in read:
        assert file.schema.equals(read[0].schema)
        assert file.schema_arrow.equals(read[0].schema_arrow, check_metadata=True)
    columns = ["image_id", "label", "label_name", "confidence", "top_label", "top_probability", "copies"]
    table = pa.concat_tables([it.read() for it in read])
    assert table.column_names == columns
    assert [it[0] for it in table["top_label"].to_pylist()] == table["label"].to_pylist()
    assert ["abcde"[label] for label in table["label"].to_pylist()] == table["label_name"].to_pylist()


def test_the_last_part_says_whose_its_rows_are(tmp_path: Path, rng: np.random.Generator, select: Asked) -> None:
    found = {}
    table = table_of(rng)
    for name, about in {"format 2": None, "format 3": FORMAT_3}.items():
        store = LocalStore(tmp_path / name)
        labels = commit_labels(store, table, 6, about=about)
        commit = select(store, labels, per_class=20)
        found[name] = list(tables(store, commit.parts, soft=True))
        for number, of_shard in enumerate(found[name]):
            ids = schema.from_parquet(labels.parts[number].objects[LABELS].read(store), "", ["image_id"])["image_id"]
            assert set(of_shard["image_id"].to_pylist()) <= set(ids.to_pylist())
        last = commit.parts[-1]
        of_last = schema.from_parquet(last.objects[SELECTION].read(store), "")
        assert of_last.num_rows
        assert ("part" in of_last.column_names) == (about is None)
        assert about is None or last.facts[ENDS][-1] == of_last.num_rows
    assert all(one.equals(other) for one, other in zip(*found.values(), strict=True))
