"""The tables of a run and of a packed folder in the hands of other programs, and the cards by which they find them."""

from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pytest
import yaml
from support.fan_out import InProcess
from support.outsiders import ROWS, loaded, parts_of, queries, rows_here, rows_of

from ray_ns.artifacts.labels import LABELS, Labels, label_objects
from ray_ns.artifacts.network import Network
from ray_ns.artifacts.scores import PREDICTIONS, Scores
from ray_ns.artifacts.selection import SELECTION
from ray_ns.config import Config
from ray_ns.corpora import pack
from ray_ns.engine import cards
from ray_ns.engine.run import Run
from ray_ns.engine.stages.evaluate import Evaluate
from ray_ns.engine.stages.select import Select
from ray_ns.export.dataset_card import CARD, MARK
from ray_ns.labels import files
from ray_ns.labels.schema import label_table
from ray_ns.observe import Reporter
from ray_ns.seals import seal
from ray_ns.store import commit as commits
from ray_ns.store.commit import Commit, Output
from ray_ns.store.lease import Lease
from ray_ns.store.objects import LocalStore

NAMES = ("größer", "it's", "no")


def registered(made: Commit, store: LocalStore) -> Commit:
    commits.register(store, f"{made.stage}/commit.json", made.digest)
    return made


def labels_in(store: LocalStore, about: files.About) -> Labels:
    """Parts that hold some quarantine, none, nothing but quarantine, and no row."""
    stage = Output(store, "rounds/1/label", lambda: None)
    rng = np.random.default_rng(0)
    bad = [lambda row: row % 5 == 2, lambda row: False, lambda row: True, lambda row: False]
    per_class = np.zeros(3, int)
    for part, (rows, is_bad) in enumerate(zip([40, 40, 5, 0], bad, strict=True)):
        soft = rng.dirichlet([0.5] * 3, rows).astype(np.float32).reshape(rows, 3)
        reasons = ["truncated" if is_bad(row) else None for row in range(rows)]
        table = label_table(np.arange(rows) + (part << 32), soft, reasons, "top", 2)
        stage.publish(part, *label_objects(table, {"teacher": "abc"}, about))
        per_class += np.bincount(table["label"].drop_null().to_numpy(), minlength=3)
    summary = {"rows": 85, "per_class": per_class.tolist(), "quarantine": {"truncated": 13}}
    return Labels(registered(stage.commit({}, summary, 4), store))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, config: Config) -> Path:
    """A run with labels, two selections of them and predictions; nothing of it was made on Ray."""
    store = LocalStore(tmp_path_factory.mktemp("run"))
    shards = [{"ordinal": at, "path": f"{at}.parquet", "size": 1, "stamp": 1} for at in range(4)]
    store.put("corpora-1.json", seal({"format": 3, "corpora": {"pool": shards}}))
    with Run(config, store, {}, (4,), Lease(store), Reporter("json"), class_names=NAMES, fan_out=InProcess) as run:
        labels = labels_in(store, files.About(NAMES, ("pool", "0123")))
        evaluate = Evaluate(Network(labels.commit))
        truth = np.array([0, 1, 2, 0])
        reasons = [None, "truncated", None, None]
        table = label_table(np.arange(4), np.eye(3, dtype=np.float32)[truth[::-1]], reasons, "hard", 1)
        made = {
            PREDICTIONS[name]: evaluate._predictions(table, truth, files.About(NAMES, (name, "4567")))
            for name in PREDICTIONS
        }
        stage = Output(store, "rounds/1/evaluate", lambda: None)
        registered(stage.commit({}, {}, [stage.put(0, {"metrics.json": b"{}", **made}, {})]), store)
        run.ensure("rounds/1/select", Select(labels))
        again = config.model_copy(update={"select": config.select.model_validate({"threshold": 0.6})})
        run.config = again
        run.ensure("rounds/1/select-0123456789ab", Select(labels))
    return store.root


@pytest.mark.parametrize("program", ROWS)
def test_other_programs_read_all_parts_of_a_stage_as_one_table(folder: Path, program: str, tmp_path: Path) -> None:
    for place, name in {"label": LABELS, "select": SELECTION, "evaluate": PREDICTIONS["test"]}.items():
        paths = parts_of(folder, f"rounds/1/{place}", name)
        here = rows_here(paths)
        assert here
        assert rows_of(program, paths, tmp_path) == here
        assert {row["label_name"] for row in here} - {None} <= set(NAMES)


def test_the_whole_run_loads_by_its_card(folder: Path, tmp_path: Path) -> None:
    found = loaded(folder, "", "train", tmp_path)
    assert found["rows"] == rows_here(parts_of(folder, "rounds/1/label", LABELS))
    assert found["names"] == {"label": list(NAMES)}
    assert found["features"]["top_label"] == "List(Value('int16'), length=2)"
    found = loaded(folder, "round-1-selection", "train", tmp_path)
    assert found["rows"] == rows_here(parts_of(folder, "rounds/1/select", SELECTION))
    found = loaded(folder, "round-1-predictions", "test", tmp_path)
    assert found["names"] == {"label": list(NAMES), "truth": list(NAMES)}
    assert [row["label"] for row in found["rows"]] == [0, None, 1, 0]
    assert [row["truth_name"] for row in found["rows"]] == [NAMES[at] for at in (0, 1, 2, 0)]


def test_the_folder_of_labels_loads_without_its_counts(folder: Path, tmp_path: Path) -> None:
    assert (folder / "rounds/1/label/counts/commit.json").exists()
    found = loaded(folder / "rounds/1/label", "", "train", tmp_path)
    assert found["rows"] == rows_here(parts_of(folder, "rounds/1/label", LABELS))


def test_the_card_lists_the_newest_labels_first_and_only_what_commits_name(folder: Path) -> None:
    front = yaml.safe_load((folder / CARD).read_text().split("---\n")[1])
    names = ["labels", "selection", "selection-0123456789ab", "predictions"]
    assert [it["config_name"] for it in front["configs"]] == [f"round-1-{name}" for name in names]
    assert [it.get("default") for it in front["configs"]] == [True, None, None, None]
    listed = front["configs"][0]["data_files"][0]["path"]
    assert [folder / path for path in listed] == parts_of(folder, "rounds/1/label", LABELS)
    assert str(folder) not in (folder / CARD).read_text()


def keep(folder: Path, config: Config) -> None:
    store = LocalStore(folder)
    with Run(config, store, {}, (4,), Lease(store), Reporter("json")) as run:
        cards.keep(run)


def test_a_lost_card_is_written_again_and_one_that_somebody_wrote_stays(folder: Path, config: Config) -> None:
    card = folder / CARD
    text = card.read_text()
    card.unlink()
    keep(folder, config)
    assert card.read_text() == text
    written = card.stat().st_mtime_ns
    keep(folder, config)
    assert card.stat().st_mtime_ns == written
    card.write_text(f"{MARK} of an earlier version")
    keep(folder, config)
    assert card.read_text() == text
    card.write_text("mine")
    keep(folder, config)
    assert card.read_text() == "mine"
    card.write_text(text)


def test_predictions_come_back_and_older_evaluations_have_none(folder: Path, tmp_path: Path) -> None:
    store = LocalStore(folder)
    committed = commits.find_commit(store, "rounds/1/evaluate")
    assert committed is not None
    found = Scores(committed, store).predictions("validation")
    assert found is not None
    assert found.column_names == ["image_id", "truth", "label", "confidence"]
    assert found.to_pylist()[1] == {"image_id": 1, "truth": 1, "label": None, "confidence": None}
    older = Output(LocalStore(tmp_path), "rounds/0/evaluate", lambda: None)
    made = older.commit({}, {}, [older.put(0, {"metrics.json": b"{}"}, {})])
    assert Scores(made, LocalStore(tmp_path)).predictions("test") is None


def test_the_queries_of_the_document_run(folder: Path) -> None:
    found = [duckdb.sql(query.replace("RUN/", f"{folder}/")).fetchall() for query in queries()]
    assert len(found) == 3
    selected = rows_here(parts_of(folder, "rounds/1/select", SELECTION))
    assert sum(row[2] for row in found[0]) == len(selected)
    assert sum(row[3] or 0 for row in found[0]) == sum(row["copies"] for row in selected)
    assert [row[0] for row in found[1]] == [f"{at // 2**32}.parquet" for at in least_sure(folder)]
    assert [(row[0], row[1], row[2]) for row in found[2]] == [(1, None, 1), (2, 1, 1)]


def least_sure(folder: Path) -> list[int]:
    rows = [row for row in rows_here(parts_of(folder, "rounds/1/label", LABELS)) if row["quarantine"] is None]
    return [row["image_id"] for row in sorted(rows, key=lambda it: it["confidence"])[:20]]


@pytest.mark.parametrize("labelled", [True, False])
def test_packed_images_load_as_pictures_with_names_of_classes(
    tmp_path: Path, config: Config, pictures: Callable[..., list[bytes]], labelled: bool
) -> None:
    store = LocalStore(tmp_path / "packed")
    for number in (1, 2):
        packer = pack.Packer(pack.schema(labelled, NAMES if labelled else None))
        for row, image in enumerate(pictures(6, number)):
            label = {"label": row % 3} if labelled else {}
            packer.add({"image": image, **label, "sha256": bytes(32), "source": f"{row}.png"})
        stage = Output(store, f"ingest-{number:04d}", lambda: None)
        registered(stage.commit({}, {}, [stage.put(0, {pack.IMAGES: packer.bytes()}, {})]), store)
    keep(store.root, config)
    found = loaded(store.root, "", "train", tmp_path / "cache")
    assert found["sizes"] == [[16, 16]] * 12
    assert [row["source"] for row in found["rows"]] == [f"{row}.png" for row in range(6)] * 2
    assert found["names"] == ({"label": list(NAMES)} if labelled else {})
    paths = [path for number in (1, 2) for path in parts_of(store.root, f"ingest-{number:04d}", pack.IMAGES)]
    here = rows_here(paths)
    for program in set(ROWS) - {"datasets"}:
        rows = rows_of(program, paths, tmp_path / "cache")
        assert [row["image"] for row in rows] == [row["image"].hex() for row in here]
        assert not labelled or [row["label"] for row in rows] == [row % 3 for row in range(6)] * 2
