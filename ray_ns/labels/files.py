"""A run's tables as Parquet that other programs read as they are: FORMAT 3 of a run.

All files of a stage have one schema, lists are lists, the name of a class stands beside its number, and the file's
metadata says which images its rows are of. ``schema`` has how formats 1 and 2 write tables; its ``from_parquet`` reads
all.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from ray_ns.labels.arrow import text_as_arrow
from ray_ns.labels.schema import GROUP_ROWS, INTEGERS, SOFT

NAMES = {"label": "label_name", "truth": "truth_name"}
MAY_BE_NULL = frozenset({"label", "label_name", "confidence", "loss", "quarantine", "member", "row", *SOFT})
IMAGE_ID = (
    "shard ordinal << 32 | row; the shards are in corpora-1.json of the run "
    "(where its pool has grown: in the corpora-N.json with the highest N); of a shard with a bitmap `kept`, "
    "the row counts among the rows that are kept"
)


@dataclass(frozen=True)
class About:
    """What a table's file says of its rows: the names of the classes, and which images the rows are of.

    ``classes``: in the order of their numbers; None where the run has no names. ``corpus``: its name in the run and the
    digest of its shards, as plans have it; None for a table whose rows are no images.
    """

    classes: tuple[str, ...] | None
    corpus: tuple[str, str] | None = None

    @classmethod
    def of(cls, table: pa.Table) -> "About | None":
        """What the file said that the table of images was read from; None: it is of format 1 or 2."""
        found = table.schema.metadata or {}
        if b"corpus" not in found:
            return None
        corpus = json.loads(found[b"corpus"])
        classes = tuple(json.loads(found[b"classes"])) if b"classes" in found else None
        return cls(classes, (corpus["name"], corpus["shards"]))

    def metadata(self) -> dict[str, str]:
        """The same as key-value metadata of a Parquet file."""
        found = {}
        if self.classes is not None:
            found["classes"] = json.dumps(self.classes, ensure_ascii=False)
        if self.corpus is not None:
            name, shards = self.corpus
            found |= {"corpus": json.dumps({"name": name, "shards": shards}), "image_id": IMAGE_ID}
        return found


def to_parquet(table: pa.Table, about: About, lineage: Mapping[str, str]) -> bytes:
    """The table as one Parquet file, with what it is ``about`` and its ``lineage`` in the file's metadata.

    - A column is required or optional by its name and the kind of table, never by what this part of it holds: strict
      readers (Polars, ``datasets``) then take all parts together.
    - Names of classes are text in the Arrow schema and a dictionary in the file: a number per row.
    - Page checksums and statistics: for labels only, as in formats 1 and 2, and for the same reasons.
    - No compression, as there. Elements of lists are required: so they are written and read in half the time.
    """
    table = _named(table, about.classes)
    of_labels = "quarantine" in table.column_names
    optional = MAY_BE_NULL if of_labels or "truth" in table.column_names else frozenset()
    fields = [field.with_nullable(field.name in optional) for field in table.schema]
    table = pa.Table.from_arrays(table.columns, schema=pa.schema(fields, {**lineage, **about.metadata()}))
    # A dictionary makes of 32 bits, which is how Parquet has an int16, the 10 that tell 1,000 classes apart.
    words = {*NAMES.values(), "quarantine", "top_label"} | ({"label"} if of_labels else set())
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="none",
        use_dictionary=[_leaf(field) for field in fields if field.name in words],
        column_encoding={name: "DELTA_BINARY_PACKED" for name in table.column_names if name in INTEGERS - words},
        write_page_checksum=of_labels,
        write_statistics=[name for name in table.column_names if name not in SOFT] if of_labels else False,
        store_schema=True,  # without it lists would be of any length
    ) as writer:
        if table.num_rows:  # ``datasets`` fails on a row group without rows
            writer.write_table(table, row_group_size=GROUP_ROWS)
    return sink.getvalue().to_pybytes()


def _named(table: pa.Table, classes: tuple[str, ...] | None) -> pa.Table:
    """The table with the name of each class right after its number."""
    for number, name in NAMES.items():
        if name in table.column_names:  # it was read from such a file
            table = table.drop_columns([name])
        if classes is not None and number in table.column_names:
            at = table.schema.get_field_index(number) + 1
            table = table.add_column(at, name, text_as_arrow(classes).take(table[number].combine_chunks()))
    return table


def _leaf(field: pa.Field) -> str:
    """The column's path in a Parquet file."""
    return f"{field.name}.list.element" if pa.types.is_fixed_size_list(field.type) else str(field.name)
