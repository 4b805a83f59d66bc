"""What settings are made of: the closed frozen section, the types of values, and the marks that a setting may bear.

A setting marked ``how()`` says how the work is done and may change between two runs of the same command. All others
decide the result (``results``); ``earlier()`` marks those whose default has changed.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import unquote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.fields import FieldInfo

_EARLIER = "earlier"
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Precision = Literal["auto", "float32", "bfloat16"]
PRECISION = (
    "autocast of the forward pass; auto: bfloat16 where the hardware computes in it, else float32, decided when the "
    "run begins and recorded"
)


def _number(key: Any) -> Any:
    """A class, as JSON and dotted overrides write it, as the integer it is."""
    return int(key) if isinstance(key, str) and key.isdecimal() else key


ClassNumber = Annotated[int, Field(ge=0), BeforeValidator(_number)]


def _or_unknown(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """None passes: the labelled corpus says how many classes there are, before anything asks (``with_classes``)."""
    return None if value is None else check(value)


ClassCount = Annotated[int, Field(ge=2, le=32_767), WrapValidator(_or_unknown)]


def how(default: Any, description: str, **limits: Any) -> Any:
    """A field that says how the work is done, not what comes out."""
    return Field(default, description=description, json_schema_extra={"result": False}, **limits)


def earlier(default: Any, before: Mapping[int, Any], description: str, **limits: Any) -> Any:
    """A field whose default has changed. ``before``: the last format of runs that have another one, and which."""
    return Field(
        default,
        description=description,
        json_schema_extra={_EARLIER: {str(last): old for last, old in before.items()}},
        **limits,
    )


def earlier_defaults(field: FieldInfo) -> dict[int, Any]:
    """The defaults that a field had, by the last format of runs that have them, ascending; empty where there is one."""
    extra = field.json_schema_extra
    found: Any = extra.get(_EARLIER, {}) if isinstance(extra, dict) else {}
    return dict(sorted((int(last), old) for last, old in found.items()))


class AsWritten:
    """Marks a setting whose text is taken as it stands, whatever YAML would make of it: no date, number or yes."""


def _absolute(path: str) -> str:
    """A path from ``/``, its ``~`` the home folder; a URL as it is, but ``file://`` as the path that it means."""
    if not path.strip() or "\0" in path or (not path.isprintable() and any("\ud800" <= it <= "\udfff" for it in path)):
        raise ValueError(f"found {path!r}; expected a path or a URL")
    scheme, separator, rest = path.partition("://")
    if separator and scheme == "file":
        if not rest.startswith("/"):
            raise ValueError(f"found {path!r}; three slashes begin a file's URL: file:///folder")
        return unquote(rest)
    if separator and scheme.isalnum():
        return path
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError:  # no such user: it is a name that begins with ~
        return str(Path(path).absolute())
    except OSError as error:
        raise ValueError(f"found {path!r}, and the working directory is gone. cd to one that exists") from error


def _network(place: str) -> str:
    """As ``_absolute``, but what can be no path, and may be a name of timm's, as it is."""
    return place if re.fullmatch(r"\w[\w.-]*", place, re.ASCII) and not Path(place).exists() else _absolute(place)


PathSetting = Annotated[str, AsWritten(), Field(min_length=1), AfterValidator(_absolute)]
NetworkSetting = Annotated[str, AsWritten(), Field(min_length=1), AfterValidator(_network)]


class Section(BaseModel):
    """A group of settings: frozen, strict about types, closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, serialize_by_alias=True)


def decided(precision: str) -> str:
    """``precision`` itself. ``ValueError`` for auto: ``engine.precision`` decides it before anything computes."""
    if precision == "auto":
        raise ValueError("precision: auto was not decided when the run began")
    return precision


def sections_of(field: FieldInfo) -> list[type[Section]]:
    """The sections of which a field holds one, or a list; none for a value."""
    return [kind for kind in _kinds(field) if isinstance(kind, type) and issubclass(kind, Section)]


def written(sections: Iterable[type[Section]]) -> dict[str, FieldInfo]:
    """The fields of sections by the names that a config has for them."""
    return {field.alias or name: field for section in sections for name, field in section.model_fields.items()}


def is_as_written(field: FieldInfo) -> bool:
    """Whether a field's text is taken as it stands."""
    return any(isinstance(it, AsWritten) for it in (*field.metadata, *_kinds(field)))


def _kinds(field: FieldInfo) -> Iterator[Any]:
    for kind in (field.annotation, *get_args(field.annotation)):
        yield kind
        if get_origin(kind) is Annotated:
            yield from (get_args(kind)[0], *kind.__metadata__)
