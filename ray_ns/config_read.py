"""A config file and its overrides, read into the schema of ``config.py``; what cannot be is refused by name."""

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ray_ns.config import Config, section_of
from ray_ns.errors import InputError


def with_classes(config: Config, classes: int) -> Config:
    """The config with ``data.classes`` known. Raises ``InputError`` where a setting names a class beyond them."""
    values = config.model_dump()
    try:
        return Config.model_validate({**values, "data": {**values["data"], "classes": classes}})
    except ValidationError as error:
        raise InputError("; ".join(_explain(error))) from error


class _Loader(yaml.CSafeLoader):
    """Safe YAML that reads 1e-3 as a number, as everyone who writes it means."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The config in the YAML file ``path`` with ``dotted.key=value`` overrides laid over it (``pool=`` is data.pool).

    Relative paths in it are meant from the working directory. Raises ``InputError``: no such file, not YAML, or any
    setting that is unknown, of a wrong type, out of range or impossible beside another.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Give the path of a YAML config.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}). Give the path of a YAML config.") from error
    try:
        values = yaml.load(text, _Loader)  # noqa: S506 - a subclass of the safe loader
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a mapping of sections (run, data, ...), found {type(values).__name__}")
    for override in overrides:
        _lay_over(values, override)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{path}: " + "; ".join(_explain(error))) from error


# What one writes most, written short.
_SHORT = ("labelled", "validation", "test", "pool")


def _lay_over(values: dict[str, Any], override: str) -> None:
    dotted, separator, text = override.partition("=")
    keys = ["data", dotted] if dotted in _SHORT else dotted.split(".")
    if not separator or not all(keys):
        raise InputError(
            f"{override!r}: an override is written section.key=value, such as run.dir=runs/demo, or pool=FOLDER"
        )
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 - a subclass of the safe loader
    except yaml.YAMLError as error:
        raise InputError(f"{override!r}: the value is not valid YAML") from error
    place: Any = values
    for key in keys[:-1]:
        at: Any = key
        if isinstance(place, list):
            at = int(key) if key.isdecimal() and int(key) < len(place) else None
            if at is None:
                raise InputError(f"{override!r}: {key} is none of the list's 0 .. {len(place) - 1}")
        section = place[at] if isinstance(place, list) else place.get(key, {})
        if not isinstance(section, dict | list):
            raise InputError(f"{override!r}: {key} is a value, not a section")
        section = place[at] = section.copy()  # a YAML alias shares one mapping between two sections
        place = section
    if isinstance(place, list):
        raise InputError(f"{override!r}: {keys[-1]} is a whole recipe of a list; name a setting of it")
    place[keys[-1]] = value


def _explain(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        location = [part for at, part in enumerate(problem["loc"]) if not (at == 1 and part in {"one", "list"})]
        path = ".".join(str(part) for part in location) or "config"
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(location[-1]), _keys_at(location[:-1]), 1)
            yield f"{path}: unknown key" + (f", did you mean {near[0]}?" if near else "; see 'ray-ns config'")
        elif problem["type"] == "missing":
            yield f"{path}: missing, and it has no default"
        elif problem["type"] == "value_error":
            yield f"{path}: {problem['msg'].removeprefix('Value error, ')}"
        else:
            yield f"{path}: found {problem['input']!r}; {problem['msg']}"


def _keys_at(location: Sequence[int | str]) -> list[str]:
    section: Any = Config
    for key in location:
        if isinstance(key, int):
            continue  # the place in a list of recipes: its keys are those of one
        field = getattr(section, "model_fields", {}).get(key)
        section = section_of(field) if field else None
    fields = getattr(section, "model_fields", {})
    return list(fields)
