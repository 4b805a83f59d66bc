"""The settings that decide the result: those of a section, and how two configs differ in them."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


def results_of(section: BaseModel) -> dict[str, Any]:
    """The settings of ``section`` that decide the result, as JSON values."""
    values = {}
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("result") is False:
            continue
        value = getattr(section, name)
        if isinstance(value, dict):  # keys as JSON has them, so that a setting equals itself read back
            value = {str(key): it for key, it in value.items()}
        values[name] = _plain(value)
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(it) for it in value]
    return results_of(value) if isinstance(value, BaseModel) else value


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """``path: old -> new`` for every leaf in which two nested mappings, or lists of mappings, differ."""
    if isinstance(old, list) and isinstance(new, list) and all(isinstance(it, Mapping) for it in (*old, *new)):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        rows = []
        for key in sorted({*old, *new}):
            rows += differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
        return rows
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]
