"""Which image got which label: the files that are written, against a join made by hand."""

import csv
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.in_process import Call
from support.labelled import THRESHOLD, Truth, commit_labels, commit_selection, free, labelled_run, truth_of
from support.shards import KINDS, write_as

from ray_ns.corpora.corpus import Corpus
from ray_ns.errors import InputError, IntegrityError
from ray_ns.export import columns, labels
from ray_ns.export.labels import Labelled, Wanted, export
from ray_ns.labels.files import About
from ray_ns.store import layout
from ray_ns.store.objects import LocalStore

NAMES = ("cat", "dog", "owl")
Pictures = Callable[..., list[bytes]]


def names_by_hand(kind: str, root: Path) -> list[dict[str, Any]]:
    """Of each image in the order of ids: where it lies, each file read by other means."""
    empty = {"member": None, "row": None, "source": None}
    if kind == "folder":
        return [{**empty, "path": str(it)} for it in sorted(root.iterdir())]
    if kind == "tar":
        with tarfile.open(root / "0.tar") as archive:
            return [{**empty, "path": str(root / "0.tar"), "member": it} for it in archive.getnames()]
    found = []
    for file in sorted(root.glob("*.parquet")):
        for row, it in enumerate(pq.read_table(file).to_pylist()):
            source = it["source"] if kind == "packed" else it["image"]["path"] if kind == "hugging face" else None
            found.append({**empty, "path": str(file), "row": row, "source": source})
    return found


def by_hand(names: list[dict[str, Any]], truth: Truth) -> list[dict[str, Any]]:
    """The rows that should be written, one image after another."""
    rows = []
    for at, name in enumerate(names):
        p, why, copies = truth.probabilities[at], truth.reasons[at], int(truth.copies[at])
        label = int(p.argmax())
        order = np.argsort(-p, kind="stable")[:5]
        halves = p[order].astype(np.float16)
        bad = why is not None
        left = None if copies else "below_threshold" if p.max() < np.float32(THRESHOLD) else "beyond_quota"
        rows.append(
            {
                **{key: name[key] for key in ("path", "member", "row", "source")},
                "duplicates": [],
                "image_id": int(truth.ids[at]),
                "label": None if bad else label,
                "label_name": None if bad else NAMES[label],
                "confidence": None if bad else float(p.max()),
                "margin": None if bad else float(max(p.max() - np.float32(halves[1]), 0)),
                "selected": copies > 0,
                "copies": copies,
                "reason": why if bad else left,
                "top_label": None if bad else order.tolist(),
                "top_name": None if bad else [NAMES[it] for it in order],
                "top_probability": None if bad else halves.astype(float).tolist(),
            }
        )
    return rows


def of_csv(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file as Python's own reader gives them, with types."""
    lists = ("duplicates", "top_label", "top_name", "top_probability")
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{name: it or None for name, it in row.items()} for row in csv.DictReader(file)]
    for row in rows:
        row |= {name: row[name] and json.loads(row[name]) for name in lists}
        row |= {name: row[name] and int(row[name]) for name in ("row", "image_id", "label", "copies")}
        row |= {name: row[name] and float(row[name]) for name in ("confidence", "margin")}
        row["selected"] = {"true": True, "false": False, None: None}[row["selected"]]
    return rows


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Equal rows; texts of numbers may have fewer digits than the numbers."""
    assert len(found) == len(wanted)
    near = ("confidence", "margin", "top_probability")
    for one, other in zip(found, wanted, strict=True):
        assert list(one) == columns.SCHEMA.names
        assert {k: v for k, v in one.items() if k not in near} == {k: v for k, v in other.items() if k not in near}
        for name in near:
            assert (one[name] is None) == (other[name] is None)
            if one[name] is not None:
                np.testing.assert_allclose(one[name], other[name], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_equal_a_join_by_hand(tmp_path: Path, pictures: Pictures, kind: str) -> None:
    pool = write_as(kind, tmp_path / "pool", pictures(41), group_rows=9)
    store, truth = labelled_run(tmp_path / "run", pool)
    of = Labelled.at(store, "rounds/1/label", pool)
    wanted = by_hand(names_by_hand(kind, tmp_path / "pool"), truth)
    for suffix in ("csv", "jsonl", "parquet"):
        counts, _ = export(of, f"{tmp_path}/labels.{suffix}")
        assert counts.rows == 41
    same(of_csv(tmp_path / "labels.csv"), wanted)
    same([json.loads(line) for line in (tmp_path / "labels.jsonl").read_text("utf-8").splitlines()], wanted)
    table = pq.read_table(tmp_path / "labels.parquet")
    same(table.to_pylist(), wanted)
    assert table["confidence"].to_pylist() == [it["confidence"] for it in wanted]
    assert counts.as_json() == {
        "rows": 41,
        "labelled": sum(it["label"] is not None for it in wanted),
        "unreadable": truth.reasons.count("truncated"),
        "known": truth.reasons.count("in_test"),
        "selected": int((truth.copies > 0).sum()),
        "left_out": 0,
    }


@pytest.mark.parametrize(("keep", "classes"), [("hard", 3), ("full", 3), ("full", 40), ("top", 2)])
def test_the_top_five_come_from_whatever_is_kept(tmp_path: Path, pictures: Pictures, keep: str, classes: int) -> None:
    pool = write_as("folder", tmp_path / "pool", pictures(30))
    names = [f"c{at}" for at in range(classes)]
    store, truth = labelled_run(tmp_path / "run", pool, names, keep)
    export(Labelled.at(store, "rounds/1/label", pool), f"{tmp_path}/l.parquet")
    for at, row in enumerate(pq.read_table(tmp_path / "l.parquet").to_pylist()):
        if keep == "hard" or truth.reasons[at]:
            assert row["margin"] is row["top_label"] is row["top_name"] is row["top_probability"] is None
            continue
        order = np.argsort(-truth.probabilities[at], kind="stable")[:5]
        np.testing.assert_array_equal(row["top_probability"], truth.probabilities[at][order].astype(np.float16))
        assert row["top_label"][0] == row["label"]
        assert row["top_name"] == [names[it] for it in row["top_label"]]
        assert len({*row["top_label"]}) == min(5, classes)


@pytest.mark.parametrize("keep", ["hard", "top", "full"])
@pytest.mark.parametrize("names", [NAMES, None])
def test_labels_of_every_format_give_the_same(
    tmp_path: Path, pictures: Pictures, keep: str, names: tuple[str, ...] | None
) -> None:
    pool = write_as("folder", tmp_path / "pool", pictures(30))
    store, truth = labelled_run(tmp_path / "run", pool, names, keep)
    for place, about in (("two/label", None), ("three/label", About(names, ("pool", "d")))):
        commit_labels(store, place, truth, 3, keep, about=about)
    two, three = (pa.concat_tables(labels.tables(Labelled.at(store, f"{it}/label", pool))) for it in ("two", "three"))
    assert two.equals(three)


def test_a_label_is_first_among_classes_that_float16_cannot_tell_apart(tmp_path: Path, pictures: Pictures) -> None:
    pool = write_as("folder", tmp_path / "pool", pictures(4))
    store, truth = labelled_run(tmp_path / "run", pool, keep="full")
    close = np.tile(np.array([0.49999, 0.50001, 0], np.float32), (4, 1))
    commit_labels(store, "label", replace(truth, probabilities=close), 1, "full")
    (table,) = labels.tables(Labelled.at(store, "label", pool))
    assert table["label"].to_pylist()[:3] == [1, 1, 1]
    assert table["top_label"].to_pylist()[0] == [1, 0, 2]


def test_without_names_and_without_a_selection_these_columns_are_null(tmp_path: Path, pictures: Pictures) -> None:
    pool = write_as("folder", tmp_path / "pool", pictures(9))
    store, truth = labelled_run(tmp_path / "run", pool, None)
    commit_labels(store, "label", truth)
    of = Labelled.at(store, "label", pool)
    counts, _ = export(of, f"{tmp_path}/l.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text().splitlines()]
    assert {(it["label_name"], it["top_name"], it["selected"], it["copies"]) for it in rows} == {(None,) * 4}
    assert [it["reason"] for it in rows] == truth.reasons
    assert counts.selected is None
    with pytest.raises(InputError, match="nothing is selected of label"):
        export(of, f"{tmp_path}/l.csv", Wanted(selected=True))


def test_after_the_pool_has_grown_new_rows_follow(tmp_path: Path, pictures: Pictures) -> None:
    images = pictures(40)
    pool = write_as("folder", tmp_path / "pool", images[:25])
    store, _ = labelled_run(tmp_path / "run", pool)
    for at, image in enumerate(images[25:]):
        (tmp_path / f"pool/00000_{at:02d}.png").write_bytes(image)  # between the names that were there
    grown = Corpus.scan(pool.root, "image", None, pool.shards)
    layout.grow(store, {"pool": [vars(it) for it in grown.shards]}, 2, free)
    truth = truth_of(grown, 3, seed=1)
    made = commit_labels(store, "pool-2/rounds/1/label", truth, 3)
    commit_selection(store, "pool-2/rounds/1/select", made, truth, 3)
    export(Labelled.at(store, "pool-2/rounds/1/label", grown), f"{tmp_path}/l.csv")
    old, new = sorted((tmp_path / "pool").glob("?????.png")), sorted((tmp_path / "pool").glob("?????_*.png"))
    names = [{"path": str(it), "member": None, "row": None, "source": None} for it in (*old, *new)]
    same(of_csv(tmp_path / "l.csv"), by_hand(names, truth))


@pytest.mark.parametrize("wanted", [Wanted(0.7), Wanted(selected=True), Wanted(0.8, True), Wanted(0.0)])
def test_only_what_is_wanted_is_written_and_the_rest_counted(
    tmp_path: Path, pictures: Pictures, wanted: Wanted
) -> None:
    pool = write_as("folder", tmp_path / "pool", pictures(40))
    store, truth = labelled_run(tmp_path / "run", pool)
    counts, _ = export(Labelled.at(store, "rounds/1/label", pool), f"{tmp_path}/l.csv", wanted)
    sure = np.array([it is None for it in truth.reasons])
    if wanted.least is not None:
        sure &= truth.probabilities.max(1) >= np.float32(wanted.least)
    if wanted.selected:
        sure &= truth.copies > 0
    assert [it["image_id"] for it in of_csv(tmp_path / "l.csv")] == truth.ids[sure].tolist()
    assert (counts.rows, counts.left_out) == (sure.sum(), 40 - sure.sum())
    assert f"{counts.left_out} left out by --min or --selected" in counts.in_words()


def test_a_part_is_read_only_when_the_one_before_has_left(tmp_path: Path, pictures: Pictures) -> None:
    pool = write_as("folder", tmp_path / "pool", pictures(60))
    store, _ = labelled_run(tmp_path / "run", pool, parts=6)
    read: list[str] = []

    class Counting(LocalStore):
        def get(self, key: str) -> bytes | None:
            read.append(key)
            return super().get(key)

    for number, table in enumerate(labels.tables(Labelled.at(Counting(store.root), "rounds/1/label", pool)), 1):
        assert table.num_rows == 10
        assert sum(it.endswith("labels.parquet") for it in read) == number
        assert sum(it.endswith("selection.parquet") for it in read) == number + 1, "and the last one, at first"


def test_many_parts_show_how_far_they_are(tmp_path: Path, pictures: Pictures, ray_ns: Call) -> None:
    store, _ = labelled_run(tmp_path / "run", write_as("folder", tmp_path / "pool", pictures(40)), parts=20)
    events = [json.loads(it) for it in ray_ns("labels", store.url, "-o", tmp_path / "l.csv", "--json").err.splitlines()]
    assert [(it["event"], it["total"]) for it in events] == [("begin", 20), ("end", 20)]


def test_a_file_is_whole_or_as_it_was(tmp_path: Path, pictures: Pictures) -> None:
    pool = write_as("folder", tmp_path / "pool", pictures(20))
    store, _ = labelled_run(tmp_path / "run", pool)
    of = Labelled.at(store, "rounds/1/label", pool)
    store.path(of.labels.parts[1].objects["labels.parquet"].key).write_bytes(b"rot")
    (tmp_path / "out").mkdir()
    for suffix in ("csv", "jsonl", "parquet"):
        file = tmp_path / f"out/l.{suffix}"
        file.write_text("as it was")
        with pytest.raises(IntegrityError):
            export(of, str(file))
        assert file.read_text() == "as it was"
    assert len(list((tmp_path / "out").iterdir())) == 3


HOSTILE = [
    *('=cmd(); "x".png', "+1.png", "-1.png", "@sum.png", "a,b;c.png", "it's.png", "🐱 чат.png"),
    *('"quoted".png', "back\\slash.png", "bell\x07.png", "x" * 251 + ".png", " spaces .png", "＝wide.png"),  # noqa: RUF001
]


def test_hostile_names_survive_and_no_cell_is_a_formula(
    tmp_path: Path, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "=pool").mkdir()
    monkeypatch.chdir(tmp_path)
    for name, image in zip(HOSTILE, pictures(len(HOSTILE)), strict=True):
        Path("=pool", name).write_bytes(image)
    pool = Corpus.scan("=pool", "image", None)
    store, _ = labelled_run(tmp_path / "run", pool, ["=1+1", "\n", "ok"])
    of = Labelled.at(store, "rounds/1/label", pool)
    counts, apostrophes = export(of, f"{tmp_path}/l.csv")
    export(of, f"{tmp_path}/l.jsonl")
    found = of_csv(tmp_path / "l.csv")
    wanted = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text("utf-8").split("\n")[:-1]]
    assert sorted(it["path"] for it in wanted) == sorted(f"=pool/{name}" for name in HOSTILE)
    with (tmp_path / "l.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))]  # noqa: RUF001
    assert apostrophes == sum(cell.startswith("'") for cell in cells) >= counts.rows
    for one, other in zip(found, wanted, strict=True):
        assert one["path"] == f"'{other['path']}"
        assert one["top_name"] == other["top_name"]


def test_the_verb_finds_the_labels_and_the_pool_by_itself(tmp_path: Path, pictures: Pictures, ray_ns: Call) -> None:
    pool = write_as("tar", tmp_path / "pool", pictures(20))
    store, truth = labelled_run(tmp_path / "run", pool)
    left = ray_ns("labels", store.url, "-o", tmp_path / "l.csv", "--min", "0.5")
    assert left.code == 0, left.err
    assert left.out.startswith(f"{tmp_path}/l.csv: {len(of_csv(tmp_path / 'l.csv'))} rows, ")
    assert left.out.endswith("labels of rounds/1/label\n")
    left = ray_ns("labels", store.url, "-o", tmp_path / "l.csv", "--json")
    assert json.loads(left.out)["unreadable"] == truth.reasons.count("truncated")
    (tmp_path / "pool").rename(tmp_path / "moved")
    left = ray_ns("labels", store.url, "-o", tmp_path / "l.csv")
    assert (left.code, "--pool PATH" in left.err, left.err.count("\n")) == (2, True, 1)
    left = ray_ns("labels", store.url, "-o", tmp_path / "l.csv", "--pool", tmp_path / "moved")
    assert left.code == 0, left.err
    assert of_csv(tmp_path / "l.csv")[0]["path"] == str(tmp_path / "moved/0.tar")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "l.xlsx"], "expected a file on this machine that ends in .csv, .parquet, .jsonl"),
        (["-o", "s3://b/l.csv"], "expected a file on this machine"),
        (["-o", "none/l.csv"], "there is no folder none"),
        (["-o", "pool/l.csv"], "one is inside the other. Give another -o, outside of the pool."),
        (["-o", "l.csv", "--min", "70"], "--min 70: expected a confidence from 0 to 1"),
        (["-o", "l.csv", "--round", "7"], "round 7 has no labels"),
        (["-o", "l.csv", "--round", "1", "--network", "best"], "give one of them"),
        (["-o", "l.csv", "--network", "best"], "no report"),
        (["-o", "l.csv", "--network", "worst"], "worst"),
        (["-o", "l.csv", "--pool", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(
    tmp_path: Path,
    pictures: Pictures,
    ray_ns: Call,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    said: str,
) -> None:
    store, _ = labelled_run(tmp_path / "run", write_as("folder", tmp_path / "pool", pictures(5)))
    monkeypatch.chdir(tmp_path)
    left = ray_ns("labels", store.url, *words)
    assert left.code == 2
    assert said in left.err
    assert left.err.count("\n") == 1
    assert sorted(it.name for it in tmp_path.iterdir()) == ["pool", "run"]


def test_every_part_has_the_same_types(tmp_path: Path, pictures: Pictures) -> None:
    pool = write_as("folder", tmp_path / "pool", pictures(12))
    store, _ = labelled_run(tmp_path / "run", pool)
    assert [it.schema for it in labels.tables(Labelled.at(store, "rounds/1/label", pool))] == [columns.SCHEMA] * 2
