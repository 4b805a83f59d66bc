"""Selections asked again on a finished run; a run whose first teacher is given, and chooses the images for all."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.tiny_run import digests, files, ray_ns, report

pytestmark = pytest.mark.ray


def rows(run: Path, stage: str, name: str) -> dict[str, np.ndarray]:
    """All rows of a stage's tables, by image id."""
    table = pq.read_table(sorted((run / stage / "data").rglob(name)), columns=None)
    order = np.argsort(table["image_id"].to_numpy())
    names = [it for it in ("image_id", "label", "confidence", "copies") if it in table.column_names]
    return {it: table[it].to_numpy()[order] for it in names}


@pytest.fixture(scope="module")
def copied(finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy of the finished run that may be written to, and the override that leads there."""
    run = tmp_path_factory.mktemp("again") / "run"
    shutil.copytree(finished.run, run)
    return run, f"run.dir={run}"


def test_another_threshold_gives_another_selection_beside_the_runs_own(finished, copied: tuple[Path, str]) -> None:
    run, place = copied
    before = digests(run)
    asked = ["select", str(finished.config), place, "select.threshold=0.6", "select.quotas={3: 0, 4: 7}", "--json"]
    found = report(ray_ns(*asked))
    assert found["place"].startswith("rounds/1/select-")
    assert {name: digests(run)[name] for name in before} == before
    labels = rows(run, "rounds/1/label", "labels.parquet")
    assert found["per_class"]["over_threshold"][5] == ((labels["label"] == 5) & (labels["confidence"] >= 0.6)).sum()
    chosen = rows(run, found["place"], "selection.parquet")
    assert chosen["confidence"].min() >= np.float32(0.6)
    assert np.isin(chosen["image_id"], labels["image_id"]).all()
    assert found["per_class"]["with_copies"][3] == 0
    assert found["per_class"]["with_copies"][4] in (0, 7)
    assert found["copies"] == chosen["copies"].sum()
    written = files(run / found["place"])
    assert report(ray_ns(*asked)) == found, "asked twice"
    assert files(run / found["place"]) == written
    assert not json.loads(ray_ns("verify", str(run), "--json").stdout)["faults"]


def test_the_runs_own_settings_give_the_runs_own_selection_and_words(finished, copied: tuple[Path, str]) -> None:
    run, place = copied
    before = files(run / "rounds")
    shown = ray_ns("select", str(finished.config), place).stdout
    assert shown.startswith("rounds/1/select: ")
    assert "below the threshold" in shown
    assert "empty 1, truncated 1" in shown
    assert files(run / "rounds") == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["student.steps=31"], "student.steps: 30 -> 31"),
        (["select.thresholds={10: 0.5}"], "class 10 is not one of data.classes = 10"),
        (["select.rule=official", "select.threshold=0.333"], "steps of 0.01"),
        (["--round", "2"], "rounds 1 to 1"),
    ],
)
def test_what_cannot_be_asked_is_refused(finished, copied: tuple[Path, str], words: list[str], said: str) -> None:
    done = ray_ns("select", str(finished.config), copied[1], *words, check=False)
    assert done.returncode == 2
    assert said in done.stderr


def test_the_official_rule_keeps_about_k_of_each_class(finished, copied: tuple[Path, str]) -> None:
    asked = ["select", str(finished.config), copied[1], "select.rule=official", "select.per_class=40", "--json"]
    found = report(ray_ns(*asked))
    totals = np.array(found["per_class"]["with_copies"])
    assert (np.abs(totals[totals > 0] - 40) <= 40).all()
    assert all(it is None or round(100 * it) == pytest.approx(100 * it) for it in found["per_class"]["cut"])


@pytest.fixture(scope="module")
def taught(finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """A run whose teacher is the file of the finished run's, by which its first teacher chooses; its command."""
    folder = tmp_path_factory.mktemp("taught")
    (weights,) = (finished.run / "rounds/0/train/data").rglob("model.safetensors")
    shutil.copytree(weights.parent, folder / "lent")
    run, teacher = folder / "run", f"teacher.from={folder / 'lent/model.safetensors'}"
    words = ["run.mode=filter_once", "run.rounds=2", "run.promote=always", "select.threshold=0.5", teacher]
    command = ["run", str(finished.config), f"run.dir={run}", *words]
    return run, command, ray_ns(*command).stdout


def test_a_teacher_that_is_given_labels_as_the_run_that_trained_it(
    finished, taught: tuple[Path, list[str], str]
) -> None:
    run, command, said = taught
    assert not (run / "rounds/0/train").exists()
    assert re.search(r"^0: teacher, .*\n *given\b", said, re.MULTILINE), "in two lines, as narrow as the column is"
    own, its = (rows(it, "rounds/1/label", "labels.parquet") for it in (run, finished.run))
    for name in its:
        np.testing.assert_array_equal(own[name], its[name])
    told = [json.loads((it / "rounds/0/evaluate/commit.json").read_text())["summary"] for it in (run, finished.run)]
    assert told[0] == told[1]
    found = report(ray_ns(*command, "--json"))
    assert [row.get("given") for row in found["rounds"]] == [True, None, None]
    assert [row["parameters"] for row in found["rounds"][:1]] == [finished.report["rounds"][0]["parameters"]]
    assert not json.loads(ray_ns("verify", str(run), "--json").stdout)["faults"]


def test_filter_once_labels_in_later_rounds_only_what_the_first_teacher_chose(
    taught: tuple[Path, list[str], str],
) -> None:
    run = taught[0]
    first, second = (rows(run, f"rounds/{number}/select", "selection.parquet") for number in (1, 2))
    assert len(first["image_id"]) < 600
    np.testing.assert_array_equal(first["image_id"], second["image_id"])
    np.testing.assert_array_equal(first["copies"], second["copies"])
    relabelled = rows(run, "rounds/2/label", "labels.parquet")
    np.testing.assert_array_equal(relabelled["image_id"], second["image_id"])
    np.testing.assert_array_equal(relabelled["label"], second["label"])
    churn = json.loads((run / "rounds/2/select/commit.json").read_text())["summary"]["churn"]
    assert churn["compared"] == len(first["image_id"])
    assert churn["changed"] == (first["label"] != second["label"]).sum()
