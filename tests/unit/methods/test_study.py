"""The ablations: what each changes, and that every one of them is a config that can be."""

import json
from pathlib import Path
from typing import Any

import pytest

from ray_ns.config import Config, GivenTeacher, check_schedules
from ray_ns.config.read import load
from ray_ns.config.results import results_of
from ray_ns.methods.study import ABLATIONS, BASE, STUDIES, base_of, variants

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture
def larger(config: Config) -> Config:
    """A run whose student is larger than its teacher, over three rounds with a recipe each."""
    values = config.model_dump(exclude_unset=True)
    student = values["student"] | {"model": values["student"]["model"] | {"args": {"channels": [16, 16, 32, 32]}}}
    later = student | {"ratio": 7, "steps": 80}
    values |= {"student": [student, later, later], "run": values["run"] | {"rounds": 3, "patience": 2}}
    return Config.model_validate(values)


def flat(values: Any, path: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names; a network's arguments are one."""
    if not isinstance(values, dict) or path.endswith("model.args"):
        return {path: values}
    return {name: it for key, value in values.items() for name, it in flat(value, f"{path}.{key}".lstrip(".")).items()}


def of_variant(base: Config, settings: dict[str, Any]) -> Config:
    return load(
        base.model_dump(exclude_unset=True), [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    )


def test_the_base_is_one_round_of_the_first_student_without_a_control(larger: Config) -> None:
    base = base_of(larger)
    assert base.student == larger.students[0]
    assert (base.run.rounds, base.run.patience, base.control.enabled) == (1, 1, False)
    assert (base.teacher, base.data, base.select, base.label) == (
        *(larger.teacher, larger.data, larger.select, larger.label),
    )


OWN = [
    {"run": {"method": "supervised"}},
    {"run": {"method": "pseudo_label"}},
    {"run": {"method": "uda"}, "uda": {"weight": 2.0}},
    {"run": {"method": "meta_pseudo_labels"}},
    {"run": {"method": "meta_pseudo_labels"}, "mpl": {"feedback": "cosine"}},
    {"run": {"method": "meta_pseudo_labels"}, "mpl": {"labels": "soft", "feedback": "exact"}},
    {"run": {"method": "meta_pseudo_labels"}, "mpl": {"preset": "official_code"}},
    {"run": {"method": "meta_pseudo_labels"}, "mpl": {"scale": 5.0, "baseline": 0.9, "student_wait": 1}},
    {"run": {"method": "meta_pseudo_labels"}, "mpl": {"reduced": True, "adjuster_lr": 0.06}},
]


@pytest.mark.parametrize("own", OWN, ids=str)
def test_a_config_of_any_method_is_compared_with_noisy_student(config: Config, own: dict[str, Any]) -> None:
    values = config.model_dump(exclude_unset=True)
    values["run"] |= {"rounds": 1} | own["run"]
    base = base_of(Config.model_validate(values | {name: it for name, it in own.items() if name != "run"}))
    assert base.run.method == "noisy_student"
    made = {it.name: of_variant(base, dict(it.settings)) for it in variants(base, "methods")}
    assert len(made) == 5
    told, silent = (flat(results_of(made[f"Meta Pseudo Labels{it}"])) for it in ("", ", no feedback"))
    assert told["mpl.labels"] == silent["mpl.labels"]
    differ = {name for name in {*told, *silent} if told.get(name) != silent.get(name)}
    assert differ <= {
        "mpl.feedback",
        "mpl.preset",
        *(f"mpl.{it}" for it in made["Meta Pseudo Labels, no feedback"].mpl.unread),
    }
    assert silent["mpl.feedback"] == "none"


def test_there_are_the_studies_of_the_paper() -> None:
    ablations = ["noise", "targets", "filter", "balance", "ratio", "pool", "init", "joint", "rounds", "sizes"]
    assert list(ABLATIONS) == ablations
    assert list(STUDIES) == [*ablations, "methods"]


@pytest.mark.parametrize("name", STUDIES)
def test_every_variant_is_a_run_and_changes_what_it_says_and_nothing_else(larger: Config, name: str) -> None:
    base = base_of(larger)
    rows = variants(base, name)
    assert rows
    assert len({it.name for it in rows}) == len(rows)
    before = flat(results_of(base))
    for it in rows:
        after = flat(results_of(of_variant(base, dict(it.settings))))
        changed = {key for key in after if after[key] != before[key]}
        assert changed, it.name
        assert changed <= {*it.settings}, it.name
        assert it.published
        assert it.against == BASE or it.against in [other.name for other in rows]


@pytest.mark.parametrize("name", STUDIES)
def test_no_two_variants_share_a_run_by_chance(larger: Config, name: str) -> None:
    by_folder: dict[str, dict[str, Any]] = {}
    for it in variants(base_of(larger), name):
        assert by_folder.setdefault(it.folder, dict(it.settings)) == it.settings
        assert it.folder.replace("-", "").isalnum()


def test_noise_is_taken_from_pool_images_alone_each_by_itself_and_all(config: Config) -> None:
    rows = {it.name: it.settings for it in variants(base_of(config), "noise")}
    assert rows == {
        "no input noise on pool images": {"student.pseudo_noise.input": False},
        "no dropout on pool images": {"student.pseudo_noise.dropout": False},
        "no drop path on pool images": {"student.pseudo_noise.drop_path": False},
        "no noise on pool images": {f"student.pseudo_noise.{it}": False for it in ("input", "dropout", "drop_path")},
        "noised teacher": {"label.noised": True},
    }


def test_noise_that_there_is_none_of_is_not_taken_away(config: Config) -> None:
    values = config.model_dump(exclude_unset=True)
    values["student"]["model"]["drop_path"] = 0.0
    rows = variants(base_of(Config.model_validate(values)), "noise")
    assert "no drop path on pool images" not in [it.name for it in rows]
    values["student"]["model"]["dropout"] = 0.0
    values["student"]["noise"] = {"augment": "none"}
    assert variants(base_of(Config.model_validate(values)), "noise") == []
    values["student"]["model"]["own_rates"] = True  # timm may give it some
    assert "no drop path on pool images" in [
        it.name for it in variants(base_of(Config.model_validate(values)), "noise")
    ]


def test_pretraining_and_fine_tuning_share_the_steps_of_a_joint_training(config: Config) -> None:
    base = base_of(config)
    (_, row) = variants(base, "joint")
    student = of_variant(base, dict(row.settings)).students[0]
    assert student.steps + student.finetune.steps == base.students[0].steps == 8
    assert not student.joint
    assert student.finetune.optimizer.lr == pytest.approx(base.students[0].optimizer.lr / 10)
    assert (student.optimizer.warmup_steps, base.students[0].optimizer.warmup_steps) == (1, 2)


def test_a_warm_start_needs_the_teachers_network_and_is_compared_with_it(larger: Config, config: Config) -> None:
    new, *warm = variants(base_of(larger), "init")
    assert new.settings["student.model.args"] == larger.teacher.model.args
    assert all(it.against == new.name for it in warm)
    assert {it.against for it in variants(base_of(config), "init")} == {BASE}, "teacher and student are alike"


def test_what_needs_the_teachers_recipe_is_no_study_of_one_that_is_given(larger: Config) -> None:
    config = base_of(larger.model_copy(update={"teacher": GivenTeacher.model_validate({"from": "/a/network"})}))
    assert {name for name in STUDIES if variants(config, name)} == {*STUDIES} - {"init", "sizes"}
    for name in STUDIES:
        for row in variants(config, name):
            assert of_variant(config, dict(row.settings)).teacher == config.teacher


def test_rounds_are_rows_of_one_run(config: Config) -> None:
    two, three = variants(base_of(config), "rounds")
    assert (two.round, three.round, two.folder) == (2, 3, three.folder)
    assert variants(base_of(config), "sizes") == [], "teacher and student are alike"


def test_a_config_without_feedback_has_one_row_of_meta_pseudo_labels_and_names_it_so(config: Config) -> None:
    values = config.model_dump(exclude_unset=True) | {"mpl": {"feedback": "none"}}
    base = base_of(Config.model_validate(values))
    named = [it.name for it in variants(base, "methods")]
    assert named == ["labels alone", "plain pseudo labels", "UDA", "Meta Pseudo Labels, no feedback"]
    assert of_variant(base, dict(variants(base, "methods")[-1].settings)).mpl.feedback == "none"


NO_NOISE = {"input": False, "dropout": False, "drop_path": False}
STAIRCASE = {"schedule": "step", "decay_steps": 2}


@pytest.mark.parametrize("labels", [{}, {"reduced": True}], ids=["full", "reduced"])
@pytest.mark.parametrize(
    ("own", "names"),
    [
        ({"student": {"loss": "sum"}}, ["student.loss"]),
        ({"student": {"joint": False}}, ["student.joint"]),
        ({"student": {"targets": "hard"}}, ["student.targets"]),
        ({"student": {"temperature": 0.5}}, ["student.temperature"]),
        ({"student": {"pseudo_noise": NO_NOISE}}, [f"student.pseudo_noise.{name}" for name in NO_NOISE]),
        ({"student": {"optimizer": {"sam": 0.1}}}, ["student.optimizer.sam"]),
        ({"teacher": {"optimizer": {"sam": 0.1}}}, ["teacher.optimizer.sam"]),
        ({"teacher": {"optimizer": STAIRCASE}}, ["teacher.optimizer.schedule", "teacher.optimizer.decay_steps"]),
        ({"cluster": {"train_microbatch": 4}}, ["cluster.train_microbatch"]),
    ],
    ids=str,
)
def test_what_a_method_cannot_use_is_set_back_in_its_row_and_named(
    config: Config, own: dict[str, dict[str, Any]], names: list[str], labels: dict[str, Any]
) -> None:
    values = config.model_dump(exclude_unset=True) | {"mpl": labels}
    values["student"] |= {"steps": 2 * values["teacher"]["steps"]}
    for section, settings in own.items():
        values[section] = {**values.get(section, {}), **settings}
    base = base_of(Config.model_validate(values))
    before = flat(results_of(base))
    set_back = set()
    for row in variants(base, "methods"):
        made = of_variant(base, dict(row.settings))
        check_schedules(made)
        assert {key for key, it in flat(results_of(made)).items() if it != before[key]} <= {*row.settings}
        assert row.settings | row.set_back == row.settings
        set_back |= {*row.set_back}
    of_teacher = names[0].startswith("teacher")
    assert set_back == (set() if of_teacher and labels else {*names}), "a frozen teacher is trained by its own recipe"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda it: it.stem)
def test_the_methods_are_compared_from_every_config_that_comes_with_ray_ns(path: Path) -> None:
    base = base_of(load(path))
    rows = variants(base, "methods")
    assert len(rows) == 5
    for row in rows:
        check_schedules(of_variant(base, dict(row.settings)))


def test_the_study_whose_runs_there_are_has_the_settings_that_they_began_with() -> None:
    rows = {it.name: it.settings for it in variants(base_of(load(CONFIGS / "methods.yaml")), "methods")}
    every = {"select.threshold": 0.0, "select.thresholds": {}, "select.balance": False, "select.quotas": {}}
    meta = {"run.method": "meta_pseudo_labels", **every}
    silent = {"mpl.preset": "paper", "mpl.labels": "sampled", "mpl.feedback": "none", "mpl.scale": 1.0}
    silent |= {"mpl.baseline": 0.99, "mpl.adjuster_lr": 0.1, "mpl.adjuster_clip": 1.0}
    assert rows == {
        "labels alone": {"run.method": "supervised"},
        "plain pseudo labels": {
            **{"run.method": "pseudo_label", "student.targets": "hard", "student.temperature": 1.0},
            **every,
        },
        "UDA": {"run.method": "uda", **every},
        "Meta Pseudo Labels": meta,
        "Meta Pseudo Labels, no feedback": meta | silent,
    }
