"""The schema: what may not be is refused by its dotted name, and what decides the result is known."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ray_ns.config import Cluster, Config, differences, results_of, section_of
from ray_ns.config.read import load, with_classes
from ray_ns.config.show import schema_as_yaml
from ray_ns.errors import InputError

DEMO = Path(__file__).parents[3] / "configs" / "demo.yaml"

# Every setting there is. A new one is a deliberate act: it is a promise to every user's config file.
SETTINGS = [
    "cluster.address",
    "cluster.checkpoint_steps",
    "cluster.checkpoints_kept",
    "cluster.cpus",
    "cluster.gpus",
    "cluster.max_failures",
    "cluster.object_store_mb",
    "cluster.store_seconds",
    "cluster.timeout_seconds",
    "cluster.train_gpus",
    "cluster.train_loaders",
    "cluster.train_microbatch",
    "cluster.train_threads",
    "cluster.train_workers",
    "control.enabled",
    "data.channels",
    "data.classes",
    "data.fit",
    "data.held_out",
    "data.image_column",
    "data.image_columns",
    "data.label_column",
    "data.label_columns",
    "data.labelled",
    "data.max_passed_over",
    "data.max_quarantined",
    "data.mean",
    "data.pool",
    "data.size",
    "data.std",
    "data.test",
    "data.validation",
    "label.actors",
    "label.compile",
    "label.gpus_per_actor",
    "label.image_seconds",
    "label.keep",
    "label.layout",
    "label.open_shards",
    "label.precision",
    "label.shard_rows",
    "label.slice_rows",
    "label.threads",
    "label.top",
    "run.dir",
    "run.mode",
    "run.patience",
    "run.rounds",
    "run.seed",
    "select.balance",
    "select.per_class",
    "select.quotas",
    "select.rule",
    "select.threshold",
    "select.thresholds",
    "student.batch",
    "student.ema_decay",
    "student.eval_steps",
    "student.finetune.freeze",
    "student.finetune.optimizer.decay_rate",
    "student.finetune.optimizer.decay_steps",
    "student.finetune.optimizer.eps",
    "student.finetune.optimizer.lr",
    "student.finetune.optimizer.lr_batch",
    "student.finetune.optimizer.momentum",
    "student.finetune.optimizer.name",
    "student.finetune.optimizer.schedule",
    "student.finetune.optimizer.warmup_steps",
    "student.finetune.optimizer.weight_decay",
    "student.finetune.size",
    "student.finetune.steps",
    "student.init",
    "student.label_smoothing",
    "student.loss",
    "student.model.args",
    "student.model.drop_path",
    "student.model.dropout",
    "student.model.name",
    "student.model.pretrained",
    "student.model.sha256",
    "student.noise.augment",
    "student.noise.crop",
    "student.noise.cutout",
    "student.noise.flip",
    "student.noise.magnitude",
    "student.noise.operations",
    "student.optimizer.decay_rate",
    "student.optimizer.decay_steps",
    "student.optimizer.eps",
    "student.optimizer.lr",
    "student.optimizer.lr_batch",
    "student.optimizer.momentum",
    "student.optimizer.name",
    "student.optimizer.schedule",
    "student.optimizer.warmup_steps",
    "student.optimizer.weight_decay",
    "student.patience",
    "student.precision",
    "student.ratio",
    "student.steps",
    "student.targets",
    "student.temperature",
    "teacher.batch",
    "teacher.ema_decay",
    "teacher.eval_steps",
    "teacher.finetune.freeze",
    "teacher.finetune.optimizer.decay_rate",
    "teacher.finetune.optimizer.decay_steps",
    "teacher.finetune.optimizer.eps",
    "teacher.finetune.optimizer.lr",
    "teacher.finetune.optimizer.lr_batch",
    "teacher.finetune.optimizer.momentum",
    "teacher.finetune.optimizer.name",
    "teacher.finetune.optimizer.schedule",
    "teacher.finetune.optimizer.warmup_steps",
    "teacher.finetune.optimizer.weight_decay",
    "teacher.finetune.size",
    "teacher.finetune.steps",
    "teacher.label_smoothing",
    "teacher.model.args",
    "teacher.model.drop_path",
    "teacher.model.dropout",
    "teacher.model.name",
    "teacher.model.pretrained",
    "teacher.model.sha256",
    "teacher.noise.augment",
    "teacher.noise.crop",
    "teacher.noise.cutout",
    "teacher.noise.flip",
    "teacher.noise.magnitude",
    "teacher.noise.operations",
    "teacher.optimizer.decay_rate",
    "teacher.optimizer.decay_steps",
    "teacher.optimizer.eps",
    "teacher.optimizer.lr",
    "teacher.optimizer.lr_batch",
    "teacher.optimizer.momentum",
    "teacher.optimizer.name",
    "teacher.optimizer.schedule",
    "teacher.optimizer.warmup_steps",
    "teacher.optimizer.weight_decay",
    "teacher.patience",
    "teacher.precision",
    "teacher.steps",
]

# Those that say how the work is done and may change between two runs of one command.
HOW = {
    "cluster.address",
    "cluster.checkpoint_steps",
    "cluster.checkpoints_kept",
    "cluster.cpus",
    "cluster.gpus",
    "cluster.max_failures",
    "cluster.object_store_mb",
    "cluster.store_seconds",
    "cluster.timeout_seconds",
    "cluster.train_gpus",
    "cluster.train_loaders",
    "cluster.train_microbatch",
    "data.labelled",  # the images in these four folders decide, not where they lie
    "data.max_passed_over",
    "data.max_quarantined",
    "data.pool",
    "data.test",
    "data.validation",
    "label.actors",
    "label.gpus_per_actor",
    "label.image_seconds",
    "label.layout",
    "label.open_shards",
    "run.dir",
    "student.model.pretrained",  # the hash of the weights decides
    "teacher.model.pretrained",
}

REQUIRED = {
    *("run.dir", "data.labelled", "data.pool"),
    *("teacher.model.name", "teacher.steps", "teacher.batch"),
    *("student.model.name", "student.steps", "student.batch"),
}

MINIMAL: dict[str, Any] = {
    "run": {"dir": "runs/x"},
    "data": {"labelled": "l", "pool": "p"},
    "teacher": {"model": {"name": "resnet10t"}, "steps": 4, "batch": 6},
    "student": {"model": {"name": "resnet10t"}, "steps": 4, "batch": 6},
}


def fields(section: type[BaseModel] = Config, path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting of the schema with its dotted name."""
    for name, field in section.model_fields.items():
        kind = section_of(field)
        if kind is not None:
            yield from fields(kind, f"{path}{name}.")
        else:
            yield f"{path}{name}", field


def leaves(value: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of nested mappings with its dotted name; a setting that is a mapping is one setting."""
    for name, inner in value.items():
        if isinstance(inner, dict) and name not in {"args", "quotas", "thresholds", "image_columns", "label_columns"}:
            yield from leaves(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}", inner


def at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A config with nothing but what has no default."""
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return path


def refusal(path: Path, *overrides: str) -> str:
    """The message that ``load`` refuses with."""
    with pytest.raises(InputError) as caught:
        load(path, overrides)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    return message


# The surface.


def test_the_settings_are_these_and_no_others() -> None:
    assert sorted(path for path, _ in fields()) == SETTINGS


def test_the_settings_without_a_default_are_these_and_no_others(file: Path) -> None:
    assert {path for path, field in fields() if field.is_required()} == REQUIRED
    assert {path for path, _ in leaves(MINIMAL)} == REQUIRED


def test_what_does_not_decide_the_result_is_these_and_nothing_else(file: Path) -> None:
    kept = [path for path, _ in leaves(results_of(load(file)))]
    assert sorted(kept) == sorted(set(SETTINGS) - HOW)


def test_every_setting_says_what_it_is_in_one_line() -> None:
    assert [path for path, field in fields() if not field.description or "\n" in field.description] == []


def test_settings_cannot_be_changed_after_loading(file: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(load(file).run, "seed", 1)  # noqa: B010 - a type checker would see it too


def test_results_are_json_and_come_back_the_same(file: Path) -> None:
    for path in (file, DEMO):
        results = results_of(load(path))
        assert json.loads(json.dumps(results, allow_nan=False)) == results


# The printed schema.


def test_the_printed_schema_is_yaml_with_every_setting_and_its_default(file: Path) -> None:
    printed = yaml.safe_load(schema_as_yaml())
    assert sorted(path for path, _ in leaves(printed)) == SETTINGS
    config = load(file)
    for path, value in leaves(printed):
        assert value == (None if path in REQUIRED else at(config, path)), path


def test_the_printed_schema_with_the_required_settings_filled_in_is_a_config(tmp_path: Path) -> None:
    printed = yaml.safe_load(schema_as_yaml())
    for path in REQUIRED:
        section = at(printed, path.rpartition(".")[0])
        section[path.rpartition(".")[2]] = at(MINIMAL, path)
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(printed))
    assert load(tmp_path / "x.yaml") == Config.model_validate(MINIMAL)


@pytest.fixture(scope="module")
def comments() -> dict[str, str]:
    """The comment line above every setting in the printed schema."""
    path: list[str] = []
    found, comment = {}, ""
    for line in schema_as_yaml().splitlines():
        if line.strip().startswith("#"):
            comment = line.strip()
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        path = [*path[:depth], line.strip().split(":")[0]]
        found[".".join(path)] = comment
    return found


def test_the_printed_schema_describes_every_setting(comments: dict[str, str]) -> None:
    for path, field in fields():
        assert str(field.description) in comments[path]
        assert ("does not change the result" in comments[path]) == (path in HOW), path


@pytest.mark.parametrize(
    ("setting", "limits"),
    [
        ("run.rounds", [">= 1", "<= 20"]),
        ("data.channels", ["1 | 3"]),
        ("student.targets", ["soft | hard"]),
        ("student.optimizer.lr", ["> 0"]),
        ("select.threshold", [">= 0", "<= 1"]),
        ("select.per_class", [">= 1", "auto"]),
        ("teacher.ema_decay", ["> 0", "< 1"]),
        ("cluster.cpus", [">= 1"]),
    ],
)
def test_the_printed_schema_names_the_range(comments: dict[str, str], setting: str, limits: list[str]) -> None:
    comment = comments[setting].removeprefix(f"# {dict(fields())[setting].description}")
    for limit in limits:
        assert limit in comment


# Refusals.


@pytest.mark.parametrize(
    ("override", "path", "suggestion"),
    [
        ("teacher.step=3", "teacher.step", "steps"),
        ("student.optimizer.learning=1", "student.optimizer.learning", None),
        ("student.optimizer.momentun=0.9", "student.optimizer.momentun", "momentum"),
        ("student.model.droppath=0.1", "student.model.droppath", "drop_path"),
        ("studnet={}", "studnet", "student"),
        ("zzz=3", "zzz", None),
        ("select.treshold=0.5", "select.treshold", "threshold"),
        ("teacher.ratio=3", "teacher.ratio", None),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    file: Path, override: str, path: str, suggestion: str | None
) -> None:
    message = refusal(file, override)
    hint = f"did you mean {suggestion}?" if suggestion else "see 'ray-ns config'"
    assert re.search(rf"(^|[ :;]){re.escape(path)}: unknown key.*{re.escape(hint)}", message)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("run.seed", "'1'"),
        ("run.seed", "true"),
        ("run.seed", "1.0"),
        ("run.seed", "null"),
        ("run.dir", "null"),
        ("data.channels", "'3'"),
        ("data.mean", "0.5"),
        ("teacher.steps", "1e3"),
        ("teacher.batch", "many"),
        ("teacher.model.args", "[1]"),
        ("teacher.optimizer.lr", "fast"),
        ("teacher.optimizer.lr", "null"),
        ("teacher.optimizer.lr", "true"),
        ("teacher.noise.flip", "1"),
        ("teacher.noise.flip", "'yes'"),
        ("student.targets", "[soft]"),
        ("select.balance", "0"),
        ("cluster.cpus", "all"),
        ("cluster.address", "6379"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_by_name(file: Path, setting: str, value: str) -> None:
    message = refusal(file, f"{setting}={value}")
    assert f"{setting}: found " in message
    assert repr(yaml.safe_load(value) if value != "1e3" else 1000.0) in message


OUT_OF_RANGE = [
    *(("run.seed", "-1"), ("run.seed", str(2**31)), ("run.rounds", "0"), ("run.rounds", "21"), ("run.patience", "0")),
    *(("run.dir", "''"), ("data.labelled", "''"), ("data.pool", "''")),
    *(("data.validation", "''"), ("data.test", "''"), ("data.held_out", "0"), ("data.held_out", "1")),
    *(("data.classes", "1"), ("data.classes", "32768"), ("data.size", "7"), ("data.size", "2049")),
    *(("data.channels", "2"), ("data.max_quarantined", "-0.1"), ("data.max_quarantined", "1.1")),
    *(("data.mean.1", "[0.5, 1.5, 0.5]"), ("data.std.2", "[0.5, 0.5, 0]")),
    *(("teacher.steps", "0"), ("teacher.batch", "0"), ("teacher.batch", "-8"), ("teacher.label_smoothing", "1")),
    *(("teacher.ema_decay", "0"), ("teacher.ema_decay", "1"), ("teacher.precision", "float16")),
    *(("teacher.model.dropout", "1"), ("teacher.model.dropout", "-0.1"), ("teacher.model.drop_path", "1.0")),
    *(("teacher.optimizer.lr", "0"), ("teacher.optimizer.lr", "-1e-3"), ("teacher.optimizer.momentum", "1")),
    *(("teacher.optimizer.weight_decay", "-1e-9"), ("teacher.optimizer.warmup_steps", "-1")),
    *(("teacher.optimizer.schedule", "linear"), ("teacher.noise.augment", "mixup")),
    *(("teacher.noise.magnitude", "10.5"), ("teacher.noise.magnitude", "-1"), ("teacher.noise.operations", "0")),
    *(("student.ratio", "-1"), ("student.ratio", "0"), ("student.ratio", "65"), ("student.temperature", "0")),
    *(("student.targets", "medium"), ("student.loss", "max"), ("label.keep", "some"), ("label.top", "0")),
    *(("label.slice_rows", "0"), ("label.actors", "0"), ("label.threads", "0"), ("label.gpus_per_actor", "-1")),
    *(
        ("select.threshold", "1.5"),
        ("select.threshold", "-0.3"),
        ("select.per_class", "0"),
        ("select.per_class", "all"),
    ),
    *(("cluster.cpus", "0"), ("cluster.object_store_mb", "79"), ("cluster.train_workers", "0")),
    *(("cluster.train_gpus", "2"), ("cluster.train_loaders", "-1"), ("cluster.max_failures", "-1")),
    *(("cluster.checkpoint_steps", "0"), ("cluster.timeout_seconds", "0"), ("cluster.store_seconds", "0")),
]


@pytest.mark.parametrize(("setting", "value"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_by_name(file: Path, setting: str, value: str) -> None:
    key = setting if not setting[-1].isdigit() else setting[:-2]
    message = refusal(file, f"{key}={value}")
    assert setting in message
    assert "found " in message


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e999", "nan"])
@pytest.mark.parametrize("setting", ["teacher.optimizer.lr", "select.threshold", "teacher.ema_decay", "data.mean"])
def test_numbers_that_are_not_finite_are_refused(file: Path, setting: str, value: str) -> None:
    text = f"[{value}, 0.5, 0.5]" if setting == "data.mean" else value
    assert setting in refusal(file, f"{setting}={text}")


@pytest.mark.parametrize(
    "value",
    ["{a: .nan}", "{a: [1, .inf]}", "{a: {1: 2}}", "{a: !!set {b, c}}", "{a: !!binary aGk=}"],
)
def test_model_arguments_that_json_cannot_hold_are_refused_by_name(file: Path, value: str) -> None:
    # They go into run.json; what does not come back the same would crash the run or bar its owner from it.
    assert "student.model.args" in refusal(file, f"student.model.args={value}")


@pytest.mark.parametrize("section", ["run", "data", "teacher", "student"])
def test_a_missing_section_is_named(tmp_path: Path, section: str) -> None:
    values = {name: inner for name, inner in MINIMAL.items() if name != section}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(values))
    assert f"{section}: missing, and it has no default" in refusal(tmp_path / "x.yaml")


@pytest.mark.parametrize("setting", sorted(REQUIRED))
def test_a_missing_setting_is_named(tmp_path: Path, setting: str) -> None:
    values = copy.deepcopy(MINIMAL)
    del at(values, setting.rpartition(".")[0])[setting.rpartition(".")[2]]
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(values))
    assert f"{setting}: missing, and it has no default" in refusal(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["label.keep=hard"], ["student.targets", "soft", "label.keep", "hard"]),
        (["cluster.train_workers=4"], ["teacher.batch = 6", "cluster.train_workers = 4", "6 = 4 x 1 + 2"]),
        (["student.batch=7", "cluster.train_workers=2"], ["student.batch = 7", "7 = 2 x 3 + 1"]),
        (["cluster.train_workers=[1, 4]"], ["teacher.batch = 6", "cluster.train_workers = 4", "6 = 4 x 1 + 2"]),
        (["cluster.train_workers=[3, 2]"], ["cluster", "train_workers = [3, 2]", "[least, most]"]),
        (["data.channels=1"], ["data", "mean has 3 values", "channels is 1"]),
        (["data.mean=[0.5]"], ["data", "mean has 1 values", "channels is 3"]),
        (["data.std=[0.5, 0.5]"], ["data", "std has 2 values", "channels is 3"]),
    ],
)
def test_an_impossible_combination_is_refused_with_both_sides(
    file: Path, overrides: list[str], wanted: list[str]
) -> None:
    message = refusal(file, *overrides)
    for words in wanted:
        assert words in message


@pytest.mark.parametrize(
    "overrides",
    [
        ["label.keep=hard", "student.targets=hard"],
        ["label.keep=full"],
        ["cluster.train_workers=3"],
        ["cluster.train_workers=[1, 3]"],
        ["data.channels=1", "data.mean=[0.5]", "data.std=[0.5]"],
    ],
)
def test_the_possible_ones_beside_them_are_accepted(file: Path, overrides: list[str]) -> None:
    load(file, overrides)


def test_all_that_is_wrong_is_said_at_once(file: Path) -> None:
    message = refusal(file, "run.rounds=0", "select.threshold=2", "teacher.step=3")
    for path in ("run.rounds", "select.threshold", "teacher.step"):
        assert f"{path}: " in message


def test_a_refusal_names_the_file(file: Path) -> None:
    assert refusal(file, "run.rounds=0").startswith(f"{file}: ")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"just words", id="words"),
        pytest.param(b"- 1\n- 2\n", id="list"),
        pytest.param(b"run: [", id="open bracket"),
        pytest.param(b"run:\n\tdir: x\n", id="tab"),
        pytest.param(b"run: *nothing\n", id="no such anchor"),
        pytest.param(b"run: !!python/object/apply:os.system ['true']\n", id="code"),
        pytest.param(b"run: {dir: \x00}\n", id="NUL"),
        pytest.param(b"\x89PNG\r\n\x1a\n\xff\xfe", id="not UTF-8"),
        pytest.param("run: {dir: grün}".encode("latin-1"), id="latin-1"),
        pytest.param(b"1: 2\n", id="number as key"),
    ],
)
def test_what_is_no_config_is_refused_and_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["nothing.yaml", "."])
def test_a_file_that_cannot_be_read_is_refused_and_named(tmp_path: Path, name: str) -> None:
    assert str(tmp_path / name) in refusal(tmp_path / name)


# Overrides.


@pytest.mark.parametrize(
    ("override", "setting", "wanted"),
    [
        ("run.seed=7", "run.seed", 7),
        ("run.dir=/data/x:1", "run.dir", "/data/x:1"),
        ("teacher.optimizer.lr=1e-3", "teacher.optimizer.lr", 0.001),
        ("teacher.optimizer.lr=1.5E+0", "teacher.optimizer.lr", 1.5),
        ("teacher.optimizer.lr=1", "teacher.optimizer.lr", 1.0),
        ("teacher.model.args={a: [1, 2e-2], b: no}", "teacher.model.args", {"a": [1, 0.02], "b": False}),
        ("teacher.model.args.width=2", "teacher.model.args", {"width": 2}),
        ("teacher.ema_decay=null", "teacher.ema_decay", None),
        ("teacher.ema_decay=", "teacher.ema_decay", None),
        ("select.per_class=130", "select.per_class", 130),
        ("select.per_class=auto", "select.per_class", "auto"),
        ("data.mean=[0, 1, 0.5]", "data.mean", [0.0, 1.0, 0.5]),
    ],
)
def test_an_override_is_yaml_laid_over_the_file(file: Path, override: str, setting: str, wanted: Any) -> None:
    assert at(load(file, [override]), setting) == wanted


def test_a_file_reads_1e_3_as_the_number_it_is(tmp_path: Path) -> None:
    text = yaml.safe_dump(MINIMAL) + "select: {threshold: 5e-1}\ncluster: {timeout_seconds: 1e+3}\n"
    (tmp_path / "x.yaml").write_text(text)
    config = load(tmp_path / "x.yaml")
    assert (config.select.threshold, config.cluster.timeout_seconds) == (0.5, 1000.0)


def test_of_two_overrides_the_later_one_counts_and_the_rest_of_the_section_stays(file: Path) -> None:
    config = load(file, ["teacher.steps=8", "teacher.steps=9"])
    assert (config.teacher.steps, config.teacher.batch) == (9, 6)


@pytest.mark.parametrize("name", ["labelled", "validation", "test", "pool"])
def test_the_corpora_have_a_short_override(file: Path, name: str) -> None:
    assert getattr(load(file, [f"{name}=s3://bucket/{name}"]).data, name) == f"s3://bucket/{name}"


def test_classes_may_be_left_to_the_labelled_corpus(file: Path) -> None:
    assert load(file, ["data.classes=null"]).data.classes is None
    unknown = load(file, ["select.quotas={12: 5}"])
    assert with_classes(unknown, 13).data.classes == 13
    with pytest.raises(InputError, match=r"select\.quotas: class 12 is not one of data\.classes = 12"):
        with_classes(unknown, 12)
    assert with_classes(load(file), 3) == load(file, ["data.classes=3"])


@pytest.mark.parametrize(
    "override", ["run.dir", "", "=3", ".run=3", "run.=3", "run..dir=3", "run.dir.x=3", "run.seed=["]
)
def test_an_override_that_is_none_is_refused_and_named(file: Path, override: str) -> None:
    assert repr(override) in refusal(file, override)


def test_an_override_changes_the_setting_it_names_and_no_other_that_shares_its_anchor() -> None:
    # configs/demo.yaml writes the optimiser once (&sgd) and uses it twice (*sgd)
    plain, laid_over = load(DEMO), load(DEMO, ["teacher.optimizer.lr=0.01", "student.noise.magnitude=2"])
    assert differences(results_of(plain), results_of(laid_over)) == [
        f"student.noise.magnitude: {plain.student.noise.magnitude} -> 2.0",
        f"teacher.optimizer.lr: {plain.teacher.optimizer.lr} -> 0.01",
    ]


# Differences.


@pytest.mark.parametrize(
    ("old", "new", "rows"),
    [
        ({}, {}, []),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ["a.c: 2 -> 3"]),
        ({"b": 1, "a": 1}, {"a": 2, "b": 2}, ["a: 1 -> 2", "b: 1 -> 2"]),
        ({"a": 1}, {}, ["a: 1 -> None"]),
        ({}, {"a": {"b": 1}}, ["a: None -> {'b': 1}"]),
        ({"a": [1, 2]}, {"a": [2, 1]}, ["a: [1, 2] -> [2, 1]"]),
        ({"a": "1"}, {"a": 1}, ["a: '1' -> 1"]),
        ({"a": {"x": 1}}, {"a": {"y": 1}}, ["a.x: 1 -> None", "a.y: None -> 1"]),
    ],
)
def test_differences_are_told_by_dotted_path(old: Any, new: Any, rows: list[str]) -> None:
    assert differences(old, new) == rows


@pytest.mark.parametrize("setting", ["run.seed", "student.optimizer.lr", "select.threshold", "cluster.train_workers"])
def test_a_setting_that_decides_the_result_makes_a_difference(file: Path, setting: str) -> None:
    new = {"run.seed": "5", "student.optimizer.lr": "5e-1", "select.threshold": "0.5", "cluster.train_workers": "2"}
    changed = load(file, [f"{setting}={new[setting]}"])
    (row,) = differences(results_of(load(file)), results_of(changed))
    assert row.startswith(f"{setting}: ")


def test_settings_that_say_how_make_none(file: Path) -> None:
    overrides = ["run.dir=elsewhere", "label.actors=4", "cluster.cpus=2", "cluster.train_loaders=3"]
    assert differences(results_of(load(file)), results_of(load(file, overrides))) == []


# A recipe per round.

TWO = "student=[{model: {name: resnet10t}, steps: 4, batch: 6}, {model: {name: resnet18}, steps: 5, batch: 6}]"


def test_students_are_listed_by_round_and_the_last_one_repeats(file: Path) -> None:
    config = load(file, [TWO, "run.rounds=3"])
    assert [student.steps for student in config.students] == [4, 5, 5]
    assert list(config.recipes()) == ["teacher", "student.0", "student.1"]
    assert [student.steps for student in load(file).students] == [4, 4]


def test_a_recipe_of_a_list_is_named_by_its_place(file: Path) -> None:
    assert "student.1.ratio: found 0" in refusal(file, TWO, "student.1.ratio=0")
    assert "student.1.rato: unknown key, did you mean ratio?" in refusal(file, TWO, "student.1.rato=2")
    assert "0 .. 1" in refusal(file, TWO, "student.2.ratio=3")
    assert "whole recipe" in refusal(file, TWO, "student.1=3")
    assert "student lists 2 recipes, run.rounds is 1" in refusal(file, TWO, "run.rounds=1")
    assert "student" in refusal(file, "student=[]")


def test_an_override_reaches_into_a_list_and_makes_its_own_difference(file: Path) -> None:
    plain, changed = load(file, [TWO]), load(file, [TWO, "student.1.optimizer.lr=0.5"])
    assert differences(results_of(plain), results_of(changed)) == ["student.1.optimizer.lr: 0.1 -> 0.5"]
    assert json.loads(json.dumps(results_of(plain))) == results_of(plain)


def test_a_student_begins_with_its_teachers_weights_only_where_they_fit(file: Path) -> None:
    load(file, ["student.init=teacher"])
    assert "round 1: its teacher may be resnet10t" in refusal(
        file, "student.init=teacher", "student.model.name=resnet18"
    )
    # with the default patience a student's teacher is always the round before
    load(file, [TWO, "run.rounds=3", "student.0.init=teacher", "teacher.model.name=resnet10t"])
    last = [TWO, "run.rounds=3", "student.1.init=teacher"]
    assert "round 2: its teacher may be resnet10t" in refusal(file, *last)
    same = [*last, "student.0.model.name=resnet18"]
    load(file, same)
    assert "round 2: its teacher may be resnet10t" in refusal(file, *same, "run.patience=2")


def test_fine_tuning_is_a_training_on_unaugmented_images(file: Path) -> None:
    assert load(file).teacher.tuning is None
    config = load(file, ["teacher.finetune={steps: 3, size: 320, optimizer: {lr: 0.01}}", "teacher.ema_decay=0.9"])
    tuning = config.teacher.tuning
    assert tuning is not None
    assert (tuning.steps, tuning.optimizer.lr, tuning.noise.augment, tuning.batch) == (3, 0.01, "none", 6)
    assert (tuning.ema_decay, tuning.model, tuning.tuning) == (0.9, config.teacher.model, None)
    assert config.at_size(320).data.size == 320


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["teacher.optimizer.schedule=step"], "step needs decay_steps"),
        (["teacher.optimizer.decay_steps=5"], "schedule is cosine"),
        (["teacher.model.sha256=" + "a" * 64], "pretrained is false"),
        (["teacher.model.sha256=abc", "teacher.model.pretrained=true"], "teacher.model.sha256"),
    ],
)
def test_settings_that_need_each_other_are_refused_alone(file: Path, overrides: list[str], words: str) -> None:
    assert words in refusal(file, *overrides)


def test_first_weights_are_known_by_their_hash_and_not_by_where_they_lie(file: Path) -> None:
    def results(path: str, sha256: str) -> dict[str, Any]:
        own = [f"teacher.model.pretrained={path}", f"teacher.model.sha256={sha256}"]
        return results_of(load(file, own))

    assert results("a.safetensors", "a" * 64) == results("b/c.safetensors", "a" * 64)
    (row,) = differences(results("a.safetensors", "a" * 64), results("a.safetensors", "b" * 64))
    assert row.startswith("teacher.model.sha256: ")


def test_patience_counts_scores_and_needs_some(file: Path) -> None:
    assert "teacher: patience = 2 counts scores and eval_steps is null" in refusal(file, "teacher.patience=2")
    assert load(file, ["teacher.patience=2", "teacher.eval_steps=10"]).teacher.patience == 2


def test_a_fine_tuning_is_not_scored(file: Path) -> None:
    tuning = load(file, ["teacher.patience=2", "teacher.eval_steps=10", "teacher.finetune.steps=5"]).teacher.tuning
    assert tuning is not None
    assert (tuning.eval_steps, tuning.patience) == (None, None)


# Loaders.


@pytest.mark.parametrize(
    ("loaders", "gpus", "cpus", "wanted"),
    [("auto", 0, 8, 0), ("auto", 1, 8, 7), ("auto", 1, 1, 1), ("auto", 1, 128, 16), (0, 1, 8, 0), (3, 0, 8, 3)],
)
def test_a_gpu_worker_has_the_loaders_its_machine_can_run(loaders: Any, gpus: int, cpus: int, wanted: int) -> None:
    assert Cluster(train_loaders=loaders, train_gpus=gpus).loaders(cpus) == wanted
