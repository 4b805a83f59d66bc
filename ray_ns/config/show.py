"""The whole schema as commented YAML, for ``ray-ns config``: each setting with its description, range and default."""

from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo

from ray_ns.config.config import Config
from ray_ns.config.schema import Section, sections_of, written


def schema_as_yaml() -> str:
    """The whole schema as commented YAML: each setting with its description, range and default."""
    return "\n".join(["# Every setting of ray-ns, with its default.", *_section_lines(Config, "")]) + "\n"


def _section_lines(section: type[Section], indent: str) -> Iterator[str]:
    for name, field in written([section]).items():
        kinds = sections_of(field)
        if kinds:
            yield f"{indent}{name}:  # {_about(kinds[0])}"
            yield from _section_lines(kinds[0], indent + "  ")
            for other in kinds[1:]:
                yield f"{indent}# or {name}:  # {_about(other)}"
                yield from (f"{indent}# {line}" for line in _section_lines(other, "  "))
            continue
        value = "# required" if field.is_required() else _as_yaml(field.get_default())
        yield f"{indent}# {field.description}{_limits(field)}"
        yield f"{indent}{name}: {value}"


def _about(section: type[BaseModel]) -> str:
    return " ".join((section.__doc__ or "").split())


def _as_yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True)
    return text.removesuffix("...\n").strip()


def _limits(field: FieldInfo) -> str:
    """The allowed values of a field, in words, from its own schema."""
    model: Any = create_model("One", x=(field.rebuild_annotation(), ...))
    facts = model.model_json_schema()["properties"]["x"]
    suffix = " (does not change the result)" if field.json_schema_extra == {"result": False} else ""
    words = {"minimum": ">= ", "exclusiveMinimum": "> ", "maximum": "<= ", "exclusiveMaximum": "< "}
    parts = []
    for one in facts.get("anyOf", [facts]):
        parts += [f"{sign}{one[word]}" for word, sign in words.items() if word in one]
        parts += [" | ".join(str(value) for value in one["enum"])] if "enum" in one else []
        parts += [f"or {one['const']}"] if "const" in one else []
    return (f" [{', '.join(parts)}]" if parts else "") + suffix
