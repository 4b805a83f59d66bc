"""Studies carried out by a fake that writes real records of what each variant is right about: no training, no Ray."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.tiny_run import digests, write_tiny

from ray_ns.artifacts.report import REPORT
from ray_ns.artifacts.scores import PREDICTIONS
from ray_ns.config import Config, Settings
from ray_ns.config.read import load
from ray_ns.engine import local_cluster
from ray_ns.engine.run import TIMING
from ray_ns.engine.stages.training import COST
from ray_ns.engine.study import Scored, carry_here, compared, seeds_of, study
from ray_ns.errors import InputError, RepeatingError
from ray_ns.evaluate.verdict import verdict
from ray_ns.labels import files
from ray_ns.observe import Mode
from ray_ns.report.terminal.study import show
from ray_ns.seals import canonical, seal, unseal
from ray_ns.store import commit, hints, layout
from ray_ns.store.commit import Output
from ray_ns.store.objects import LocalStore

IMAGES = 200


def free() -> None:
    """A fence nobody has run into."""


class Runs:
    """Makes runs of which it is known how many of the test images each student has right."""

    def __init__(self, right_of: Callable[[Config, int], int]) -> None:
        self._right_of = right_of
        self.made: list[tuple[str, str | None]] = []

    def __call__(self, config: Config, fork: str | None, mode: Mode) -> None:
        self.made.append((config.run.dir, fork))
        store = LocalStore(config.run.dir)
        layout.begin(store, Settings().of(config), {"pool": []}, free, layout.Classes(3))
        rows = []
        for number in range(config.run.rounds + 1):
            turn = f"rounds/{number}"
            many = self._right_of(config, number)
            label = np.where(np.arange(IMAGES) < many, 1, 2).astype(np.int16)
            table = pa.table(
                {
                    "image_id": np.arange(IMAGES),
                    "truth": np.ones(IMAGES, np.int16),
                    "label": label,
                    "confidence": np.ones(IMAGES, np.float32),
                }
            )
            data = files.to_parquet(table, files.About(None), {})
            self._stage(store, f"{turn}/evaluate", {PREDICTIONS["test"]: data})
            hints.write(store, f"{turn}/evaluate/{TIMING}", {"seconds": 2.0})
            hints.write(store, f"{turn}/train/{COST}", {"memory_mb": 1234})
            rows.append({"round": turn})
        self._stage(store, "report", {REPORT: canonical({"rounds": rows})})

    def _stage(self, store: LocalStore, place: str, objects: dict[str, bytes]) -> None:
        def work(output: Output) -> tuple[dict[str, Any], int]:
            output.publish(0, objects, {})
            return {}, 1

        commit.ensure(store, place, {}, work, free)


def right_of(config: Config, number: int) -> int:
    """The teacher has 100 of 200, a student 150, more with later rounds, and 3 or 4 fewer without input noise."""
    noise = config.students[0].pseudo_noise
    lost = 0 if noise.input else 3 + config.run.seed % 2
    return 100 if number == 0 else 150 + 10 * (number - 1) - lost + config.run.seed


@pytest.fixture
def values(config: Config, tmp_path: Path) -> dict[str, Any]:
    values = config.model_dump(exclude_unset=True)
    values["run"] |= {"dir": str(tmp_path / "run"), "seed": 4}
    return values


def test_each_variant_is_a_run_forked_from_the_base_of_its_seed(values: dict[str, Any], tmp_path: Path) -> None:
    carry = Runs(right_of)
    found = study(values, "noise", "0..2", None, (), "plain", carry)
    folder = tmp_path / "run.studies"
    bases = [str(folder / "base" / str(seed)) for seed in range(3)]
    assert [place for place, fork in carry.made if fork is None] == bases
    for place, fork in carry.made:
        if fork is not None:
            assert fork == f"{folder}/base/{Path(place).name}"
            assert Path(place).parents[1] == folder / "noise"
    assert len(carry.made) == 3 * 6
    assert found["seeds"] == [0, 1, 2]
    assert found["teacher"] == [50.0] * 3
    assert found["base"] == [75.0, 75.5, 76.0]


def test_the_differences_are_paired_seed_by_seed(values: dict[str, Any]) -> None:
    found = study(values, "noise", "0..2", None, (), "plain", Runs(right_of))
    rows = {it["variant"]: it for it in found["rows"]}
    row = rows["no input noise on pool images"]
    assert row["top1"] == [73.5, 73.5, 74.5]
    each = np.array([-1.5, -2.0, -1.5])
    half = 4.3027 * each.std(ddof=1) / 3**0.5
    assert row["points"] == pytest.approx(each.mean())
    assert (row["low"], row["high"]) == pytest.approx((each.mean() - half, each.mean() + half), abs=1e-4)
    assert (row["word"], row["interval"], row["lower"], row["higher"]) == ("worse", "seeds", 3, 0)
    same = rows["no dropout on pool images"]
    assert (same["points"], same["low"], same["high"], same["word"]) == (0, 0, 0, "cannot tell")
    assert row["seconds"] == 4.0
    assert row["settings"] == {"student.pseudo_noise.input": False}


@pytest.mark.parametrize(("images", "word"), [(1, "cannot tell"), (2, "cannot tell"), (3, "better")])
def test_seeds_that_agree_by_chance_give_no_word_where_too_few_images_differ(images: int, word: str) -> None:
    """Two seeds of one and the same difference have an interval of no width."""
    own, other = (Scored(np.arange(100) < 50 + more, 1.0) for more in (images, 0))
    assert compared([own, own], [other, other])["word"] == word


def test_one_seed_has_the_interval_of_its_images_and_says_so(
    values: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    found = study(values, "noise", "1", None, (), "plain", Runs(right_of))
    assert found["seeds"] == [4]
    row = found["rows"][0]
    right = np.arange(IMAGES) < 151
    whole = verdict(right, np.arange(IMAGES) < 154)
    assert (row["points"], row["low"], row["high"], row["word"]) == (whole.points, whole.low, whole.high, whole.word)
    assert row["interval"] == "images"
    show(found)
    out = capsys.readouterr().out
    assert "They say nothing of how another training would end" in out
    (line,) = [line for line in out.splitlines() if line.startswith("no input noise on pool images")]
    assert " ".join(line.split()).endswith("75.5 -1.5 -3.7 to +0.6 cannot tell 1 of 1 4 s 1,234 MB")


def test_what_is_finished_is_only_read_and_what_is_not_goes_on(values: dict[str, Any]) -> None:
    first = study(values, "noise", "2", None, (), "plain", Runs(right_of))
    again = Runs(right_of)
    assert study(values, "noise", "2", None, (), "plain", again) == first
    assert again.made == []
    more = study(values, "noise,balance", "3", None, (), "plain", again)
    made = [Path(place).parts[-3:] for place, _ in again.made]
    assert made[:3] == [*(("balance", "no-balance", seed) for seed in "45"), ("run.studies", "base", "6")]
    assert len(made) == 2 + 7, "of the new seed everything, of the others the new study"
    assert more["studies"] == ["noise", "balance"]


def test_what_a_method_cannot_use_is_set_back_and_told_of(
    values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = study(values, "methods", "1", None, ["student.loss=sum"], "plain", Runs(right_of))
    told = {row["variant"]: row.get("set_back") for row in found["rows"]}
    back = {"student.loss": "mean"}
    assert told == {"labels alone": None, "plain pseudo labels": None} | dict.fromkeys(
        ("UDA", "Meta Pseudo Labels", "Meta Pseudo Labels, no feedback"), back
    )
    show(found)
    assert "\nUDA: with student.loss: mean, which its method needs.\n" in capsys.readouterr().out


def test_a_variant_that_would_never_learn_is_refused_before_anything_is_made(values: dict[str, Any]) -> None:
    runs, many = Runs(right_of), values["student"]["steps"]
    with pytest.raises(InputError, match=rf"study .*: student.optimizer.warmup_steps = {many}: "):
        study(values, "noise", "1", None, [f"student.optimizer.warmup_steps={many}"], "plain", runs)
    assert runs.made == []


@pytest.mark.parametrize(
    ("name", "variant"),
    [("noise", "noised teacher"), ("sizes", "a student of the teacher's size"), ("init", "the tea")],
)
def test_a_variant_whose_networks_cannot_be_built_is_refused_before_any_is_made(
    values: dict[str, Any], name: str, variant: str
) -> None:
    values["teacher"]["model"] = {"name": "lcnetv2_small"}  # takes no drop path, and the student has some
    carry = Runs(right_of)
    with pytest.raises(InputError, match=rf"study {name}, .{variant}.*lcnetv2_small takes no drop_path"):
        study(values, name, "1", None, (), "plain", carry)
    assert carry.made == []


def test_a_study_that_began_in_an_earlier_format_is_only_read(values: dict[str, Any]) -> None:
    first = study(values, "noise", "1", None, (), "plain", Runs(right_of))
    for path in Path(f"{values['run']['dir']}.studies").rglob("run.json"):
        path.write_bytes(seal({**unseal(path.read_bytes(), ""), "format": layout.BESIDE - 1}))
    again = Runs(right_of)
    assert study(values, "noise", "1", None, (), "plain", again) == first
    assert again.made == []


def test_a_run_of_other_settings_is_not_taken_for_the_studys(values: dict[str, Any]) -> None:
    study(values, "balance", "1", None, (), "plain", Runs(right_of))
    another = Runs(right_of)
    with pytest.raises(InputError, match=r"student\.steps"):
        study(values, "balance", "1", None, ["student.steps=9"], "plain", _Refusing(another))
    assert another.made == []


class _Refusing:
    """Refuses another run's directory as the real thing does, and else makes runs."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def __call__(self, config: Config, fork: str | None, mode: Mode) -> None:
        layout.check_owner(LocalStore(config.run.dir), lambda record: Settings().differences(record, config))
        self._runs(config, fork, mode)


def test_rounds_are_read_out_of_one_run(values: dict[str, Any]) -> None:
    carry = Runs(right_of)
    found = study(values, "rounds", "1", None, (), "plain", carry)
    assert len(carry.made) == 2
    assert [it["points"] for it in found["rows"]] == [5.0, 10.0]


def test_a_row_is_compared_with_the_variant_that_it_names(values: dict[str, Any]) -> None:
    def right(config: Config, number: int) -> int:
        return 150 - (20 if config.select.threshold == 0 else 0) - (5 if config.students[0].targets == "hard" else 0)

    found = study(values, "targets", "1", None, (), "plain", Runs(right))
    assert [(it["against"], it["points"]) for it in found["rows"]] == [
        ("as configured", -2.5),
        ("as configured", -10.0),
        ("soft labels, no threshold", -2.5),
    ]


@pytest.mark.parametrize(("text", "seeds"), [("0..4", [0, 1, 2, 3, 4]), ("3", [7, 8, 9]), ("1", [7]), ("5..5", [5])])
def test_seeds(text: str, seeds: list[int]) -> None:
    assert seeds_of(text, 7) == seeds


@pytest.mark.parametrize("text", ["", "0", "4..1", "..3", "a", "1..b", "-1", "1..1000", "9" * 30])
def test_seeds_that_cannot_be(text: str) -> None:
    with pytest.raises(InputError, match="--seeds"):
        seeds_of(text, 0)


def test_an_unknown_study_and_one_with_nothing_to_compare_are_refused(values: dict[str, Any]) -> None:
    for name, words in (("nois", "There are noise, targets"), ("sizes", "nothing to compare")):
        carry = Runs(right_of)
        with pytest.raises(InputError, match=words):
            study(values, name, "1", None, (), "plain", carry)
        assert carry.made == []
    found = study(values, "all", "1", None, (), "plain", Runs(right_of))
    assert "sizes" not in found["studies"]
    assert len(found["studies"]) == 9
    assert json.loads(json.dumps(found)) == found
    beside = study(values, "all,methods", "1", None, (), "plain", Runs(right_of))
    assert beside["studies"] == [*found["studies"], "methods"]


def test_a_study_without_test_images_is_refused_before_anything_is_made(values: dict[str, Any]) -> None:
    values["data"] = {name: it for name, it in values["data"].items() if name != "test"} | {"held_out": 0}
    carry = Runs(right_of)
    with pytest.raises(InputError, match=r"data\.test"):
        study(values, "noise", "2", None, (), "plain", carry)
    assert carry.made == []


@pytest.mark.parametrize(
    ("given", "words"), [(("validation", "test"), "training alone"), (("test",), "its own images")]
)
def test_it_says_whether_the_seeds_change_the_data(
    given: tuple[str, ...], words: str, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in {"validation", "test"} - {*given}:
        del values["data"][name]
    show(study(values, "balance", "0..1", None, (), "plain", Runs(right_of)))
    assert words in capsys.readouterr().out


def test_a_variant_that_cannot_be_made_is_left_out_and_named(
    values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """And so is what is compared with it; the others go on. A later start tries it again."""
    carry = Runs(right_of)

    def impossible(config: Config, fork: str | None, mode: Mode) -> None:
        if "soft-labels" in config.run.dir and config.run.seed == 1:
            raise InputError("no label is so sure.")
        carry(config, fork, mode)

    found = study(values, "targets,balance", "0..1", None, (), "plain", impossible)
    told = {it["variant"]: it["why"] for it in found["left_out"]}
    assert [it["variant"] for it in found["rows"]] == ["hard labels", "no balance"]
    assert told["soft labels, no threshold"] == "seed 1: no label is so sure."
    assert "soft labels, no threshold" in told["hard labels, no threshold"]
    show(found)
    assert "left out: targets, soft labels, no threshold: seed 1: no label is so sure." in capsys.readouterr().out
    assert not study(values, "targets,balance", "0..1", None, (), "plain", carry)["left_out"]


def test_a_base_that_cannot_be_made_ends_the_study(values: dict[str, Any]) -> None:
    def impossible(config: Config, fork: str | None, mode: Mode) -> None:
        raise InputError("no such images.")

    with pytest.raises(InputError, match="no such images"):
        study(values, "noise", "1", None, (), "plain", impossible)


def test_the_interval_over_seeds_holds_its_level() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        shift = rng.normal(1.0, 0.7, 5)
        own = [Scored(np.arange(1000) < 800 + round(10 * it), 1.0) for it in shift]
        other = [Scored(np.arange(1000) < 800, 1.0)] * 5
        found = compared(own, other)
        held += found["low"] <= 1.0 <= found["high"]
    assert 0.92 <= held / 400 <= 0.98


def test_a_small_run_is_made_in_this_process_and_its_fork_takes_what_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*words: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(local_cluster, "start", refused)
    small = ["run.rounds=1", "teacher.steps=2", "student.steps=2", "select.threshold=0.0"]
    small += [f"{name}.optimizer.warmup_steps=0" for name in ("teacher", "student")]
    config = load(write_tiny(tmp_path), [f"run.dir={tmp_path}/base", *small])
    carry_here(config, None, "json")
    other = load(config.model_dump(exclude_unset=True), [f"run.dir={tmp_path}/other", "student.targets=hard"])
    carry_here(other, config.run.dir, "json")
    base, fork = digests(tmp_path / "base"), digests(tmp_path / "other")
    assert {"rounds/1/train", "report"} <= base.keys() == fork.keys()
    assert fork["rounds/1/select"] == base["rounds/1/select"]
    assert fork["rounds/1/train"] != base["rounds/1/train"]
    assert not list((tmp_path / "other/rounds/0").rglob("timing.json"))


def test_a_crash_of_a_variant_is_no_row_that_is_left_out(values: dict[str, Any]) -> None:
    carry = Runs(right_of)

    def crashing(config: Config, fork: str | None, mode: Mode) -> None:
        if fork is not None:
            raise RepeatingError("rounds/1/train failed: ValueError.")
        carry(config, fork, mode)

    with pytest.raises(RepeatingError):
        study(values, "balance", "1", None, (), "plain", crashing)
