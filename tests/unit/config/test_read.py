"""A path is the text that was given, in a file as on the command line, and always one from the root."""

from pathlib import Path
from typing import Any

import pytest

from ray_ns.config import Config
from ray_ns.config.read import load
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


def at(config: Config, setting: str) -> Any:
    value: Any = config
    for name in setting.split("."):
        value = getattr(value, name)
    return value


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


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load(path, overrides)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
