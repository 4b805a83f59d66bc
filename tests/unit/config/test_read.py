"""A path is the text that was given, in a file as on the command line, and always one from the root."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.settings import DEMO, MINIMAL, at, refusal

from ray_ns.config import Settings
from ray_ns.config.read import as_overrides, load, with_classes
from ray_ns.config.results import results_of
from ray_ns.errors import InputError

PATHS = ["run.dir", "data.labelled", "data.validation", "data.test", "data.pool", "teacher.model.pretrained"]

# Folders as people call them; YAML takes most of these for something else.
NAMES = ["2024-11-25", "no", "off", "1e3", "0x1F", "007", "1_000", "12:30:00", "3", "1.5", ".inf", ".nan", "=", "a=b"]
# Those that YAML cannot even read, or reads as several things.
ODD = ["batch #2", "@scratch", "set: one", "*x", "&x", "!x", "%x", "[x]", "{x}", "- x", "? x", "`x`", "|", "> x", "a'b"]

TEXT = """
run: {{dir: runs/x}}
data: {{labelled: l, pool: p}}
teacher: {{model: {{name: resnet10t}}, steps: 4, batch: 6}}
student: {{model: {{name: resnet10t}}, steps: 4, batch: 6}}
{more}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config in the working directory, which is also the home folder of nobody else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "x.yaml").write_text(TEXT.format(more=""))
    return tmp_path / "x.yaml"


def with_value(file: Path, setting: str, value: str) -> Path:
    """The config with one setting written in block style, where comments and odd characters have their meaning."""
    lines = {
        "run": ["run:", "  dir: runs/x"],
        "data": ["data:", "  labelled: l", "  pool: p"],
        "teacher": ["teacher:", "  steps: 4", "  batch: 6", "  model:", "    name: resnet10t"],
        "student": ["student: {model: {name: resnet10t}, steps: 4, batch: 6}"],
    }
    section, *_, name = setting.split(".")
    indent = "    " if "model" in setting else "  "
    lines[section] = [line for line in lines[section] if line.split(":")[0].strip() != name]
    lines[section].append(f"{indent}{name}: {value}")
    file.write_text("\n".join(line for part in lines.values() for line in part) + "\n")
    return file


@pytest.mark.parametrize("setting", PATHS)
@pytest.mark.parametrize("name", NAMES)
def test_a_path_in_a_file_is_its_text(file: Path, setting: str, name: str) -> None:
    if setting == "teacher.model.pretrained" and name in {"no", "off"}:
        assert at(load(with_value(file, setting, name)), setting) is False
        return
    assert at(load(with_value(file, setting, name)), setting) == str(file.parent / name)


@pytest.mark.parametrize("setting", PATHS)
@pytest.mark.parametrize("name", [*NAMES, *ODD])
def test_a_path_on_the_command_line_is_its_text(file: Path, setting: str, name: str) -> None:
    if setting == "teacher.model.pretrained" and name == "no":
        assert at(load(file, [f"{setting}={name}"]), setting) is False
        return
    assert at(load(file, [f"{setting}={name}"]), setting) == str(file.parent / name)
    short = setting.removeprefix("data.")
    if short != setting:
        assert at(load(file, [f"{short}={name}"]), setting) == str(file.parent / name)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_name_in_a_file_is_read_in_quotes_and_refused_without(file: Path, name: str) -> None:
    quoted = "'" + name.replace("'", "''") + "'"
    assert load(with_value(file, "data.pool", quoted)).data.pool == str(file.parent / name)
    (file.parent / name).mkdir()
    if name == "a'b":
        assert load(with_value(file, "data.pool", name)).data.pool == str(file.parent / name)
        return
    message = refusal(with_value(file, "data.pool", name))
    assert "line 5" in message or "data.pool: found " in message
    assert "quote" in message or "data.pool: found " in message or "not valid YAML" in message


@pytest.mark.parametrize(
    ("value", "meant"),
    [("batch #2", "batch #2"), ("batch #2  # the second", "batch #2"), ("#2", "#2"), ("a #b #c", "a #b")],
)
def test_a_name_that_yaml_cuts_at_a_comment_is_refused_where_its_folder_exists(
    file: Path, value: str, meant: str
) -> None:
    (file.parent / meant).mkdir()
    message = refusal(with_value(file, "data.pool", value))
    assert "data.pool: line 5" in message
    assert f'Write it in quotes: "{meant}"' in message


def test_a_comment_is_one_where_no_such_folder_exists(file: Path) -> None:
    assert load(with_value(file, "data.pool", "batch  # 2")).data.pool == str(file.parent / "batch")
    assert load(with_value(file, "data.test", "# none")).data.test is None


@pytest.mark.parametrize("setting", PATHS)
def test_a_path_begins_at_the_root_and_a_tilde_is_the_home_folder(file: Path, setting: str) -> None:
    for value, wanted in {
        "~/x": file.parent / "home/x",
        "x/../y": file.parent / "x/../y",  # through a link, that is not y
        "./x/": file.parent / "x",
        "/data/x:1": "/data/x:1",
        "~nobody-of-that-name": file.parent / "~nobody-of-that-name",
        "file:///data/a%20b": "/data/a b",
        "s3://bucket/a#b": "s3://bucket/a#b",
        "hf://datasets/x": "hf://datasets/x",
    }.items():
        assert at(load(with_value(file, setting, value)), setting) == str(wanted)
        assert at(load(file, [f"{setting}={value}"]), setting) == str(wanted)
    assert at(load(file, [f"{setting}=~"]), setting) == str(file.parent / "home")
    assert "~ is YAML's word for nothing. Write ~/" in refusal(with_value(file, setting, "~"))


@pytest.mark.parametrize("setting", PATHS)
@pytest.mark.parametrize("value", ["''", '""', "'  '", '"a\\0b"', "file://host/x", "file://x"])
def test_what_is_no_path_is_refused_by_name(file: Path, setting: str, value: str) -> None:
    assert f"{setting}" in refusal(file, f"{setting}={value}")
    assert f"{setting}" in refusal(with_value(file, setting, value))


@pytest.mark.parametrize("value", ["", "null", "Null"])
def test_a_path_that_may_be_missing_is_unset_by_null(file: Path, value: str) -> None:
    assert load(file, [f"validation={value}"]).data.validation is None
    assert load(with_value(file, "data.validation", value)).data.validation is None
    assert "data.pool: found None" in refusal(file, f"pool={value}")
    assert "data.pool: found None" in refusal(with_value(file, "data.pool", value))


def test_a_path_is_text_in_sections_that_are_shared_listed_or_laid_over_whole(file: Path) -> None:
    root = file.parent
    shared = "data: &d {labelled: 1e3, pool: no}\n"
    file.write_text(TEXT.format(more="").replace("data: {labelled: l, pool: p}\n", shared.replace("&d ", "")))
    assert load(file).data.pool == str(root / "no")
    file.write_text(
        TEXT.format(more="").replace("run: {dir: runs/x}", "run: {dir: &n 3, seed: *n}").replace("pool: p", "pool: *n")
    )
    found = load(file)
    assert (found.run.dir, found.run.seed, found.data.pool) == (str(root / "3"), 3, str(root / "3"))
    assert load(file, ["data={labelled: 1e3, pool: 2024-11-25}"]).data.labelled == str(root / "1e3")
    network = "{model: {name: resnet10t, pretrained: 007}, steps: 4, batch: 6}"
    assert load(file, [f"student=[{network}]"]).students[0].model.pretrained == str(root / "007")
    assert load(file, [f"student=[{network}]", "student.0.model.pretrained=1e3"]).students[0].model.pretrained == str(
        root / "1e3"
    )


@pytest.mark.parametrize("name", ["no", "1e3", "2024", "a#b"])
def test_the_name_of_a_column_is_text_too(file: Path, name: str) -> None:
    assert load(file, [f"data.label_column={name}"]).data.label_column == name
    assert load(with_value(file, "data.image_column", name)).data.image_column == name


def test_an_override_that_reaches_too_deep_is_refused(file: Path) -> None:
    for override in ("teacher.model.args" + ".a" * 100_000 + "=1", "a" + ".a" * 100_000 + "=1"):
        message = refusal(file, override)
        assert "nested deeper than 32" in message
        assert len(message) < 500
    assert "64 bits" in refusal(file, "run.seed=" + "1" * 5000)
    assert "student" in refusal(file, "student=[{}]", f"student.{'1' * 5000}.ratio=3")
    assert len(refusal(file, f"select.quotas.{'1' * 5000}=3")) < 1000
    assert "holds itself" in refusal(file, "teacher.model.args={a: &a [*a]}")
    assert "'ratio'" in refusal(file, "student={ratio: 1, ratio: 2}")


def test_of_all_that_is_wrong_ten_are_told(file: Path) -> None:
    file.write_text(TEXT.format(more="\n".join(f"rum{n}: 1" for n in range(1000))))
    message = refusal(file)
    assert message.endswith("; and 990 more")
    assert len(message) < 1000


def test_a_mark_of_byte_order_is_no_part_of_a_config(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().lstrip())
    assert load(file).run.seed == 0


# What is no config.


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
    plain = load(file, ["student.noise={augment: none}"])  # beside which flip: true would be refused, were it written
    assert with_classes(plain, 3).students[0].noise == plain.students[0].noise


@pytest.mark.parametrize(
    "override", ["run.dir", "", "=3", ".run=3", "run.=3", "run..dir=3", "run.dir.x=3", "run.seed=["]
)
def test_an_override_that_is_none_is_refused_and_named(file: Path, override: str) -> None:
    assert repr(override) in refusal(file, override)


def test_an_override_changes_the_setting_it_names_and_no_other_that_shares_its_anchor() -> None:
    # configs/demo.yaml writes the optimiser once (&sgd) and uses it twice (*sgd)
    plain, laid_over = load(DEMO), load(DEMO, ["teacher.optimizer.lr=0.01", "student.noise.magnitude=2"])
    assert Settings().differences(results_of(plain), laid_over) == [
        f"student.noise.magnitude: {plain.student.noise.magnitude} -> 2.0",
        f"teacher.optimizer.lr: {plain.teacher.optimizer.lr} -> 0.01",
    ]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"pool": Path("a b/c")}, ['pool="a b/c"']),
        (
            {"select": {"threshold": np.float32(0.5), "thresholds": {3: 0.25}}},
            ["select.threshold=0.5", "select.thresholds.3=0.25"],
        ),
        ({"validation": None, "run": {"dir": "true"}}, ["validation=null", 'run.dir="true"']),
        ({"select": {"quotas": {}}}, ["select.quotas={}"]),
    ],
)
def test_settings_from_python_are_overrides(settings: dict[str, Any], wanted: list[str]) -> None:
    assert as_overrides(settings) == wanted


def test_a_config_may_be_nested_mappings_with_paths(tmp_path: Path, file: Path) -> None:
    values = yaml.safe_load(file.read_text())
    before = json.dumps(values)
    from_python = load({**values, "pool": tmp_path / "#1 it's: 'x'"}, ["run.rounds=1"])
    assert json.dumps(values) == before
    assert from_python.data.pool == str(tmp_path / "#1 it's: 'x'")
    assert results_of(from_python) == results_of(load(file, ["run.rounds=1"]))


def test_what_a_mapping_misses_is_named() -> None:
    with pytest.raises(InputError, match="config: run: missing"):
        load({"data": {}})
