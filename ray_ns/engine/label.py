"""Label a corpus with a pool of teacher actors on Ray Data, and commit the pool's labels shard by shard.

One row of the dataset is one slice, a fixed run of rows of one row group, and the teacher takes one row at a time:
Ray merges and splits blocks but never rows, so what is labelled together does not depend on how the work was spread.
A teacher reads, decodes and labels its slice itself, so no image crosses the object store; the small label tables come
back to the driver, which puts each shard's together and publishes it when its last slice has come.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa

from ray_ns import __version__
from ray_ns.config import Config, results_of
from ray_ns.engine.session import Session
from ray_ns.errors import InputError
from ray_ns.images import decode
from ray_ns.images.corpus import Corpus, Shard, image_ids
from ray_ns.labels import schema
from ray_ns.store.commit import Commit, Stage, StoredObject
from ray_ns.store.manifest import digest
from ray_ns.store.objects import open_store

LABELS = "labels.parquet"


@dataclass(frozen=True)
class ShardLabels:
    """All labels of one shard: its rows in order, and the sizes of its row groups."""

    corpus: str
    shard: Shard
    table: pa.Table
    group_rows: list[int]


def label(session: Session, prefix: str, teacher: Commit) -> Commit:
    """The committed labels of the pool by ``teacher``: one part per shard of the pool."""
    config, pool = session.config, session.corpora["pool"]
    inputs = {
        "teacher": teacher.digest,
        "pool": digest([vars(shard) for shard in pool.shards]),
        "label": results_of(config.label),
        "data": results_of(config.data),
        "decode": decode.VERSION,
    }

    def work(stage: Stage) -> tuple[dict[str, Any], int]:
        done = stage.done()
        open_shards = [shard for k, shard in enumerate(pool.shards) if k not in done]
        parts = {shard: k for k, shard in enumerate(pool.shards)}
        rows = sum(part.facts["rows"] for part in done.values())
        session.reporter.begin(prefix, len(pool.shards), "shards", len(done))
        lineage = {"teacher": teacher.digest, "decode": decode.VERSION, "ray_ns": __version__}
        for found in predict(session, teacher, [("pool", shard) for shard in open_shards]):
            part = parts[found.shard]
            facts = _facts(found, config.data.classes)
            done[part] = stage.publish(part, {LABELS: schema.to_parquet(found.table, lineage)}, facts)
            rows += facts["rows"]
            session.reporter.progress(len(done))
        summary = _summary([done[k].facts for k in range(len(parts))], config.data.classes)
        check_quarantine(config, "pool", summary["rows"], summary["quarantine"])
        session.reporter.end(f"{rows:,} images labelled, {sum(summary['quarantine'].values()):,} in quarantine")
        return summary, len(parts)

    return session.ensure(prefix, inputs, work)


def check_quarantine(config: Config, corpus: str, rows: int, reasons: dict[str, int]) -> None:
    """Raise ``InputError`` where more of a corpus is unreadable than ``data.max_quarantined`` allows, or all of it."""
    bad = sum(reasons.values())
    if bad > config.data.max_quarantined * rows or (rows and bad == rows):
        words = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        raise InputError(
            f"data.{corpus}: {bad} of {rows} images cannot be read ({words}), more than data.max_quarantined = "
            f"{config.data.max_quarantined:g}. Mend the images, or raise it."
        )


def predict(session: Session, teacher: Commit, shards: list[tuple[str, Shard]]) -> Iterator[ShardLabels]:
    """Label ``shards``, given as (corpus name, shard), in whatever order they finish."""
    if not shards:
        return
    session.ray()
    import ray

    config = session.config
    items = [{"corpus": corpus, "shard": vars(shard)} for corpus, shard in shards]
    list_them = partial(list_slices, corpora=session.corpora, slice_rows=config.label.slice_rows)
    slices = ray.data.from_items(items, override_num_blocks=len(items)).flat_map(list_them)
    files = {name: vars(stored) for name, stored in teacher.parts[0].objects.items()}
    labelled = slices.map_batches(
        TeacherActor,
        batch_size=1,
        zero_copy_batch=True,
        compute=ray.data.ActorPoolStrategy(size=config.label.actors),
        num_cpus=config.label.threads if not config.label.gpus_per_actor else 0,
        num_gpus=config.label.gpus_per_actor or None,
        fn_constructor_args=(session.store.url, files, session.corpora, config),
    )
    yield from _assembled(labelled.iter_rows(), shards)


def list_slices(row: dict[str, Any], corpora: dict[str, Corpus], slice_rows: int) -> list[dict[str, Any]]:
    """The slices of one shard: runs of at most ``slice_rows`` rows of one row group, from the footer alone."""
    shard = Shard(**row["shard"])
    group_rows = corpora[row["corpus"]].open(shard).group_rows
    slices = []
    first = 0
    for group, rows in enumerate(group_rows):
        for begin in range(0, rows, slice_rows):
            count = min(slice_rows, rows - begin)
            slices.append({"group": group, "begin": begin, "rows": count, "first_row": first + begin})
        first += rows
    # A shard without rows still has one slice, so that it too ends with a committed part.
    slices = slices or [{"group": -1, "begin": 0, "rows": 0, "first_row": 0}]
    return [{**row, **it, "slice": i, "slices": len(slices), "group_rows": group_rows} for i, it in enumerate(slices)]


class TeacherActor:
    """One teacher of the pool: loads the network once, then labels slice after slice."""

    def __init__(
        self, store_url: str, files: dict[str, dict[str, Any]], corpora: dict[str, Corpus], config: Config
    ) -> None:
        import torch

        from ray_ns.labels.predict import Teacher
        from ray_ns.models.zoo import from_files

        torch.set_num_threads(config.label.threads)
        store = open_store(store_url)
        network = from_files({name: StoredObject(**it).read(store) for name, it in files.items()})
        device = torch.device("cuda" if torch.cuda.is_available() and config.label.gpus_per_actor else "cpu")
        self._teacher = Teacher(network, config.data, config.label.slice_rows, config.label.precision, device)
        self._decode = decode.Decode(config.data.size, config.data.channels)
        self._decoders = ThreadPoolExecutor(config.label.threads)
        self._corpora = corpora
        self._config = config
        self._group = lru_cache(2)(self._read_group)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One slice in (a row of ``list_slices``), the same row out with its label table as Arrow IPC bytes."""
        row = {name: column[0] for name, column in batch.items()}
        data, label = self._config.data, self._config.label
        count = int(row["rows"])
        shard = Shard(**row["shard"])
        encoded: Iterable[Any] = ()
        if count:
            encoded = self._group(row["corpus"], shard, int(row["group"])).slice(int(row["begin"]), count)
        decoded = list(self._decoders.map(self._decode, (value.as_py() for value in encoded)))
        reasons = [str(pixels) if isinstance(pixels, decode.Reason) else None for pixels in decoded]
        blank = np.zeros((data.size, data.size, data.channels), np.uint8)
        images = [blank if isinstance(pixels, decode.Reason) else pixels for pixels in decoded]
        probabilities = self._teacher(np.stack(images)) if images else np.zeros((0, data.classes), np.float32)
        ids = image_ids(shard.ordinal, int(row["first_row"]) + np.arange(count))
        table = schema.label_table(ids, probabilities, reasons, label.keep, min(label.top, data.classes))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return {**batch, "table": np.array([sink.getvalue().to_pybytes()], object)}

    def _read_group(self, corpus: str, shard: Shard, group: int) -> pa.Array:
        return self._corpora[corpus].open(shard).images(group)


def _assembled(rows: Iterable[dict[str, Any]], shards: list[tuple[str, Shard]]) -> Iterator[ShardLabels]:
    """Slices in any order to whole shards, each yielded as soon as its last slice has come."""
    wanted = set(shards)
    waiting: dict[tuple[str, Shard], dict[int, pa.Table]] = {}
    for row in rows:
        key = (row["corpus"], Shard(**row["shard"]))
        parts = waiting.setdefault(key, {})
        parts[row["slice"]] = pa.ipc.open_stream(row["table"]).read_all()
        if len(parts) == row["slices"]:
            del waiting[key]
            wanted.discard(key)
            table = pa.concat_tables([parts[i] for i in range(len(parts))]).combine_chunks()
            yield ShardLabels(*key, table, [int(rows) for rows in row["group_rows"]])
    if wanted or waiting:
        raise AssertionError(f"Ray Data ended without {len(wanted)} of {len(shards)} shards")


def _facts(found: ShardLabels, classes: int) -> dict[str, Any]:
    table = found.table
    labels = table["label"].drop_null().to_numpy()
    reasons = table["quarantine"].drop_null().value_counts()
    return {
        "shard": vars(found.shard),
        "rows": table.num_rows,
        "group_rows": found.group_rows,
        "per_class": np.bincount(labels, minlength=classes).tolist(),
        "quarantine": {str(it["values"]): it["counts"] for it in reasons.to_pylist()},
    }


def _summary(facts: list[Any], classes: int) -> dict[str, Any]:
    reasons: dict[str, int] = {}
    for part in facts:
        for reason, count in part["quarantine"].items():
            reasons[reason] = reasons.get(reason, 0) + count
    per_class = sum((np.array(part["per_class"]) for part in facts), np.zeros(classes, np.int64))
    return {
        "rows": sum(part["rows"] for part in facts),
        "per_class": per_class.tolist(),
        "quarantine": dict(sorted(reasons.items())),
    }
