"""The settings that decide the result: how a run writes them down, and in which of them a config differs from a run.

A run names a setting where its value is not the default. So a setting that is new, at its default, changes no digest
and refuses no run. For the same reason a default holds for every run of its format: where it changes, a new format
begins, and ``earlier`` in the schema says what it was. A run that exists goes on with the defaults of its own format.

A run of FORMAT 1 names every setting that there was when it began, at its default too. It goes on to do so, and so its
digests stay what they were.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ray_ns.config.schema import earlier_defaults, sections_of

Names = Mapping[type[BaseModel], frozenset[str]]
S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True)
class Settings:
    """How one run writes its settings down, and which defaults it has.

    ``always``: by section, those it names even where they are the default. ``format``: the one it began with, whose
    defaults are the run's; None: a new run's.
    """

    always: Names = field(default_factory=dict)
    format: int | None = None

    @classmethod
    def of_run(cls, record: Mapping[str, Any] | None, kind: type[BaseModel]) -> "Settings":
        """Of the run whose ``run.json`` is ``record``, a record of a section ``kind``; None: of a new run."""
        if record is None:
            return cls()
        found: dict[type[BaseModel], frozenset[str]] = {}
        if record["format"] == 1:
            _note_names(record["config"], kind, found)
        return cls(found, record["format"])

    def completed(self, section: S) -> S:
        """``section`` with the run's own default of every setting that nobody has set."""
        return _completed(section, self.format)

    def of(self, section: BaseModel) -> dict[str, Any]:
        """The settings of ``section`` that this run names, as JSON values."""
        always = self.always.get(type(section), frozenset())
        return {
            name: value
            for name, value, default in _values(section, self.of, self.format)
            if name in always or value != default
        }

    def differences(self, record: Mapping[str, Any], section: BaseModel) -> list[str]:
        """``path: old -> new`` for every setting in which ``section`` differs from the run's record of it.

        A setting that the record does not name has its default.
        """
        unknown: list[str] = []
        return changes(_filled(record, type(section), "", unknown, self.format), results_of(section)) + unknown

    def with_defaults(self, record: Mapping[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
        """The run's record of a section, with the default of every setting that it does not name."""
        return dict(_filled(record, kind, "", [], self.format))


def results_of(section: BaseModel) -> dict[str, Any]:
    """All settings of ``section`` that decide the result, as JSON values."""
    return {name: value for name, value, _ in _values(section, results_of, None)}


def changes(old: Any, new: Any, path: str = "") -> list[str]:
    """``path: old -> new`` for every leaf in which two nested mappings, or lists of mappings, differ."""
    if isinstance(old, list) and isinstance(new, list) and all(isinstance(it, Mapping) for it in (*old, *new)):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        rows = []
        for key in sorted({*old, *new}):
            rows += changes(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
        return rows
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]


_REQUIRED = object()  # equals no value


def _deciding(kind: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """The settings of a section that decide the result."""
    for name, it in kind.model_fields.items():
        extra = it.json_schema_extra
        if not (isinstance(extra, dict) and extra.get("result") is False):
            yield name, it


def _values(
    section: BaseModel, inner: Callable[[BaseModel], Any], format: int | None
) -> Iterator[tuple[str, Any, Any]]:
    """Each deciding setting with its value and its default; ``inner`` makes JSON values of a section within."""
    for name, it in _deciding(type(section)):
        yield name, _plain(getattr(section, name), inner), _default(it, inner, format)


def _default(it: FieldInfo, inner: Callable[[BaseModel], Any], format: int | None) -> Any:
    return _REQUIRED if it.is_required() else _plain(_default_value(it, format), inner)


def _default_value(it: FieldInfo, format: int | None) -> Any:
    """The default of a setting in runs of a format; None: in new ones."""
    value = it.get_default(call_default_factory=True)
    if format is None:
        return value
    return next((old for last, old in earlier_defaults(it).items() if format <= last), _completed(value, format))


def _completed(value: Any, format: int | None) -> Any:
    """A value; a section, or a list of them, with that format's default of every setting that nobody has set."""
    if isinstance(value, list):
        return [_completed(it, format) for it in value]
    if format is None or not isinstance(value, BaseModel):
        return value
    changed = {}
    for name, it in type(value).model_fields.items():
        held = getattr(value, name)
        own = _completed(held, format) if name in value.model_fields_set else _default_value(it, format)
        if own != held:
            changed[name] = own
    return value.model_copy(update=changed) if changed else value


def _plain(value: Any, inner: Callable[[BaseModel], Any]) -> Any:
    if isinstance(value, BaseModel):
        return inner(value)
    if isinstance(value, list):
        return [_plain(it, inner) for it in value]
    if isinstance(value, dict):  # keys as JSON has them, so that a setting equals itself read back
        return {str(key): it for key, it in value.items()}
    return value


def _filled(record: Any, kind: type[BaseModel], path: str, unknown: list[str], format: int | None) -> Any:
    """A record of a section, or of a list of them, with the default of every setting that it does not name."""
    if isinstance(record, list):
        return [_filled(it, kind, f"{path}{at}.", unknown, format) for at, it in enumerate(record)]
    if not isinstance(record, Mapping):
        return record
    values: dict[str, Any] = {}
    for name, it in _deciding(kind):
        if name in record:
            inner = record[name]
            section = _recorded(it, inner)
            values[name] = _filled(inner, section, f"{path}{name}.", unknown, format) if section else inner
        elif not it.is_required():
            values[name] = _default(it, results_of, format)
    unknown += [
        f"{path}{name}: {record[name]!r} -> no such setting in this version"
        for name in sorted({*record} - {*kind.model_fields})
    ]
    return values


def _recorded(it: FieldInfo, record: Any) -> type[BaseModel] | None:
    """The section whose record that is: of several, the first for which it names all that has no default."""
    kinds = sections_of(it)
    named = record.keys() if isinstance(record, Mapping) else ()
    fits = (kind for kind in kinds if all(name in named for name, own in _deciding(kind) if own.is_required()))
    return next(fits, kinds[0] if kinds else None)


def _note_names(record: Any, kind: type[BaseModel], found: dict[type[BaseModel], frozenset[str]]) -> None:
    """Note which settings of each section a record names, the sections within it too."""
    for it in record if isinstance(record, list) else [record]:
        if not isinstance(it, Mapping):
            continue
        found[kind] = found.get(kind, frozenset()) | it.keys()
        for name, value in it.items():
            section = _recorded(kind.model_fields[name], value) if name in kind.model_fields else None
            if section is not None:
                _note_names(value, section, found)
