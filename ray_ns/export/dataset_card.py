"""A dataset card: the README.md by which ``datasets.load_dataset(FOLDER)`` reads a folder. Values in, text out."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import yaml

CARD = "README.md"
MARK = "<!-- Written by ray-ns, and written again as the folder grows. Without this line it stays as it is. -->"
CLASSES = frozenset({"label", "truth"})
IMAGE = "image"
_KINDS = {"float": "float32", "halffloat": "float16"}  # which Arrow and the library ``datasets`` name differently

_TEXT = """
# {title}

{configs}

`image_id` is the number of an image: its shard's ordinal << 32 | its row. `label_name` and `truth_name` are the names
of the classes `label` and `truth`, where they are known. `quarantine` says why an image has no label. `copies` says how
often a selected image trains the student. Lists are lists.

```sql
-- in DuckDB
SELECT * FROM read_parquet('{example}') LIMIT 10;
```

Every file and column, more queries, and how to get from an `image_id` to a file: docs/FILES.md of ray-ns.

{mark}
"""


class Table(NamedTuple):
    """What is read as one: ``splits``, paths of Parquet files below the card; their ``schema``; names of the classes.

    ``name`` is that of the config. ``note``: what else is to be known of the table.
    """

    name: str
    splits: Mapping[str, Sequence[str]]
    schema: pa.Schema
    classes: Sequence[str] | None
    note: str = ""


def card(title: str, tables: Sequence[Table], elsewhere: Sequence[str] = ()) -> str:
    """The text. The first table is what is read where no config is named.

    ``elsewhere``: configs of which the folder does not hold the files.
    """
    classes: dict[tuple[str, ...], dict[str, Any]] = {}  # one object for equal names, which YAML then writes once
    configs: list[dict[str, Any]] = []
    infos: list[dict[str, Any]] = []
    for table in tables:
        files = [{"split": split, "path": list(paths)} for split, paths in table.splits.items()]
        default = {} if configs else {"default": True}
        configs.append({"config_name": table.name, "data_files": files, **default})
        names = None
        if table.classes is not None:
            key = tuple(table.classes)
            names = classes.setdefault(key, {"class_label": {"names": {str(at): it for at, it in enumerate(key)}}})
        infos.append({"config_name": table.name, "features": [_feature(it, names) for it in table.schema]})
    front = yaml.safe_dump({"configs": configs, "dataset_info": infos}, sort_keys=False, allow_unicode=True)
    listed = [
        f"- `{it.name}`: {', '.join(f'`{split}`' for split in it.splits)}{f'; {it.note}' if it.note else ''}"
        for it in tables
    ]
    listed += [f"- {name}: its files lie in the run that this one was forked from" for name in elsewhere]
    example = next(iter(tables[0].splits.values()))[0]
    text = _TEXT.format(title=title, configs="\n".join(listed), example=_together(example), mark=MARK)
    return f"---\n{front}---\n{text}"


def _feature(field: pa.Field, names: Mapping[str, Any] | None) -> dict[str, Any]:
    """A column as the card's YAML has it."""
    if field.name == IMAGE:
        return {"name": field.name, "dtype": "image"}
    if names is not None and field.name in CLASSES:
        return {"name": field.name, "dtype": names}
    if pa.types.is_fixed_size_list(field.type):
        return {"name": field.name, "list": _kind(field.type.value_type), "length": field.type.list_size}
    return {"name": field.name, "dtype": _kind(field.type)}


def _kind(kind: pa.DataType) -> str:
    return "binary" if pa.types.is_fixed_size_binary(kind) else _KINDS.get(str(kind), str(kind))


def _together(path: str) -> str:
    """The pattern that all parts of a stage match: ``.../data/*/labels.parquet``."""
    folder, _, name = path.rpartition("/")
    return f"{folder.rpartition('/')[0]}/*/{name}".lstrip("/")
