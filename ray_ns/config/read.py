"""A config file and its overrides, read into the schema; what cannot be is refused by name."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ray_ns.config import yaml_text
from ray_ns.config.config import Config
from ray_ns.config.schema import Section, is_as_written, sections_of, written
from ray_ns.errors import InputError

# So many characters may take so many bytes, and one more shows that there are more.
_MAX_BYTES = 4 * yaml_text.MAX_CHARACTERS + 1

# What one writes most, written short.
_SHORT = ("labelled", "validation", "test", "pool")

# What an override of a text may say besides: nothing, or yes and no where the setting knows them.
_WORDS = {"", *(it for word in ("null", "true", "false", "yes", "no") for it in (word, word.title(), word.upper()))}

_TOLD = 10  # of all that is wrong
_TAGS = {"one", "list", "trained", "given"}  # of what a section may be, in the place of an error

S = TypeVar("S", bound=Section)


def load(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """The config in the YAML file ``source`` with ``dotted.key=value`` overrides laid over it (``pool=`` is data.pool).

    ``source`` may be the settings themselves, as nested mappings. Relative paths are meant from the working directory.
    Raises ``InputError``: no such file, not YAML, or any setting that is unknown, of a wrong type, out of range or
    impossible beside another.
    """
    try:
        return Config.model_validate(_laid(source, overrides))
    except ValidationError as error:
        raise InputError(f"{'config' if isinstance(source, Mapping) else source}: {_explain(error)}") from error


def relative(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> dict[str, str]:
    """Where a config that can be loaded names a place from the working directory: dotted settings and what they say."""
    values = _laid(source, overrides)
    names = [("run", "dir"), *(("data", name) for name in _SHORT)]
    said = {f"{section}.{name}": str(values[section][name]) for section, name in names if values[section].get(name)}
    return {name: place for name, place in said.items() if "://" not in place and not place.startswith(("/", "~"))}


def _laid(source: str | Path | Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The settings as they are written, with the overrides laid over them."""
    values = {} if isinstance(source, Mapping) else _settings_in(source)
    for override in as_overrides(source) if isinstance(source, Mapping) else ():
        _lay_over(values, override)
    if any(override.startswith("teacher.from=") for override in overrides):
        values["teacher"] = {}  # a network takes the place of a whole recipe
    for override in overrides:
        _lay_over(values, override)
    return values


def as_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Settings as Python has them (``select={"threshold": 0.5}``, ``pool=Path("x")``) as ``dotted.key=value``."""
    found = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found += as_overrides({f"{name}.{key}": it for key, it in value.items()})
        else:
            found.append(f"{name}={json.dumps(value, default=_as_json, ensure_ascii=False)}")
    return found


def _as_json(value: Any) -> Any:
    """NumPy's numbers as numbers, paths as text."""
    return value.item() if hasattr(value, "item") else str(value)


def _settings_in(path: str | Path) -> dict[str, Any]:
    """What a YAML file says."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(_MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Give the path of a YAML config.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}). Give the path of a YAML config.") from error
    try:
        node = yaml_text.compose(text)
        _keep_words(node, written([Config]), "", text)
        values = yaml_text.construct(node)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a mapping of sections (run, data, ...), found {type(values).__name__}")
    return values


def laid_over(kind: type[S], values: dict[str, Any], overrides: Sequence[str]) -> S:
    """``values`` with overrides laid over them, as a ``kind``, which has sections of a config by their names."""
    for override in overrides:
        _lay_over(values, override)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError(_explain(error)) from error


def with_classes(config: Config, classes: int) -> Config:
    """The config with ``data.classes`` known. Raises ``InputError`` where a setting names a class beyond them."""
    values = config.model_dump(exclude_unset=True)  # some settings may be there only where they are meant
    try:
        return Config.model_validate({**values, "data": {**values["data"], "classes": classes}})
    except ValidationError as error:
        raise InputError(_explain(error)) from error


def _keep_words(node: yaml.Node | None, fields: Mapping[str, FieldInfo], path: str, text: str) -> None:
    """Make text of every value that is to be taken as written, whatever YAML took it for."""
    if isinstance(node, yaml.SequenceNode):
        for at, one in enumerate(node.value):
            _keep_words(one, fields, f"{path}{at}.", text)
    if not isinstance(node, yaml.MappingNode):
        return
    for at, (key, value) in enumerate(node.value):
        field = fields.get(key.value)
        inner = sections_of(field) if field else []
        if key.tag == yaml_text.MERGE:
            _keep_words(value, fields, path, text)
        elif inner:
            _keep_words(value, written(inner), f"{path}{key.value}.", text)
        elif field is not None and is_as_written(field):
            node.value[at] = (key, _as_text(value, field, f"{path}{key.value}", text))


def _as_text(node: yaml.Node, field: FieldInfo, path: str, text: str) -> yaml.Node:
    line = yaml_text.line_of(node)
    if not isinstance(node, yaml.ScalarNode):
        kind = "list" if isinstance(node, yaml.SequenceNode) else "mapping"
        raise ValueError(
            f"{path}: line {line}: expected one text, found a {kind}. A name with [ or {{ stands in quotes."
        )
    if node.style:  # in quotes, or a block
        return node
    whole = next((name for name in _names_with_hash(node, text) if Path(name).expanduser().exists()), None)
    if whole is not None:
        raise ValueError(
            f"{path}: line {line}: YAML takes ' #' for the beginning of a comment and reads {node.value!r}, but "
            f"{whole!r} exists. Write it in quotes: {json.dumps(whole, ensure_ascii=False)}"
        )
    if node.value == "~":
        raise ValueError(f"{path}: line {line}: ~ is YAML's word for nothing. Write ~/ for your home folder, or null.")
    if node.tag == yaml_text.NULL or (node.tag == yaml_text.BOOL and bool in get_args(field.annotation)):
        return node
    return yaml.ScalarNode(yaml_text.STR, node.value, node.start_mark, node.end_mark)


def _names_with_hash(node: yaml.ScalarNode, text: str) -> list[str]:
    """What a plain value may have been meant to be, where the rest of its line is a comment to YAML."""
    rest = re.match(r"[^\r\n]*", text[node.end_mark.index :])
    assert rest is not None
    ends = [found.start() for found in re.finditer(r"\s+#|$", rest.group())]
    return [(node.value + rest.group()[:end]).strip() for end in ends[1:]] if ends[0] == 0 else []


def _lay_over(values: dict[str, Any], override: str) -> None:
    dotted, separator, text = override.partition("=")
    said = yaml_text.shown(override)
    keys = ["data", dotted] if dotted in _SHORT else dotted.split(".")
    if not separator or not all(keys):
        raise InputError(f"{said}: an override is written section.key=value, such as run.dir=runs/demo, or pool=FOLDER")
    if len(keys) > yaml_text.MAX_DEPTH:
        raise InputError(f"{said}: nested deeper than {yaml_text.MAX_DEPTH} levels")
    value = _value(keys, text, said)
    place: Any = values
    for key in keys[:-1]:
        at: Any = key
        if isinstance(place, list):
            at = int(key) if key.isdecimal() and len(key) < 10 and int(key) < len(place) else None
            if at is None:
                raise InputError(f"{said}: {key} is none of the list's 0 .. {len(place) - 1}")
        section = place[at] if isinstance(place, list) else place.get(key, {})
        if not isinstance(section, dict | list):
            raise InputError(f"{said}: {key} is a value, not a section")
        section = place[at] = section.copy()  # a YAML alias shares one mapping between two sections
        place = section
    if isinstance(place, list):
        raise InputError(f"{said}: {keys[-1]} is a whole recipe of a list; name a setting of it")
    place[keys[-1]] = value


def _value(keys: Sequence[str], text: str, said: str) -> Any:
    """The value of an override: YAML, or the text as it is where the setting is to be taken as written."""
    field = _fields_at(keys[:-1]).get(keys[-1])
    try:
        if field is not None and is_as_written(field):
            quoted = len(text) > 1 and text[0] in "\"'" and text[-1] == text[0]
            word = yaml_text.construct(yaml_text.compose(text)) if quoted or text in _WORDS else text
            return word if word is None or quoted or bool in get_args(field.annotation) else text
        node = yaml_text.compose(text)
        if field is not None:
            _keep_words(node, written(sections_of(field)), f"{'.'.join(keys)}.", text)
        return yaml_text.construct(node)
    except ValueError as error:
        raise InputError(f"{said}: {str(error).removeprefix('line 1: ')}") from error


def _explain(error: ValidationError) -> str:
    told = [_problem(problem) for problem in error.errors(include_url=False)[:_TOLD]]
    more = error.error_count() - len(told)
    return "; ".join([*told, *([f"and {more:,} more"] if more else [])])


def _problem(problem: ErrorDetails) -> str:
    location = [part for at, part in enumerate(problem["loc"]) if not (at == 1 and part in _TAGS)]
    path = ".".join(str(part) for part in location) or "config"
    if len(path) > 200:
        path = f"{path[:100]} ... ({len(path):,} characters)"
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1])[:100], list(_fields_at(location[:-1])), 1)
        return f"{path}: unknown key" + (f", did you mean {near[0]}?" if near else "; see 'ray-ns config'")
    if problem["type"] == "missing":
        return f"{path}: missing, and it has no default"
    if problem["type"] == "value_error":
        return f"{path}: {problem['msg'].removeprefix('Value error, ')}"
    return f"{path}: found {yaml_text.shown(problem['input'])}; {problem['msg']}"


def _fields_at(location: Sequence[int | str]) -> dict[str, FieldInfo]:
    """The settings at a dotted place; a number is a place in a list of recipes, whose settings are those of one."""
    fields = written([Config])
    for key in location:
        if not isinstance(key, int) and not key.isdecimal():
            fields = written(sections_of(fields[key])) if key in fields else {}
    return fields
