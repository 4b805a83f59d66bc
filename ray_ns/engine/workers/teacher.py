"""The teacher as an actor of Ray Data: it loads the network once and labels, or is judged on, slice after slice."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ray_ns.artifacts.digests import KnownFrom, load
from ray_ns.config import Config
from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.known import DIGEST_BYTES
from ray_ns.engine.workers.slices import CONTENT, Batch, Reader, Slice, decoded
from ray_ns.labels import schema
from ray_ns.store.commit import StoredObject
from ray_ns.store.objects import ObjectStore

if TYPE_CHECKING:
    from torch import nn

TABLE = "table"


class TeacherActor:
    """One teacher of the pool. ``files``: its network as a commit holds it; ``loaded``: where it is loaded already."""

    def __init__(
        self,
        store: ObjectStore,
        files: Mapping[str, StoredObject],
        corpora: Mapping[str, Corpus],
        config: Config,
        known_from: KnownFrom | None = None,
        loaded: "nn.Module | None" = None,
    ) -> None:
        import torch

        from ray_ns.engine.workers.judging import Judge
        from ray_ns.models.files import from_files
        from ray_ns.models.memory import keep_memory
        from ray_ns.models.predictor import Teacher

        label = config.label
        keep_memory()
        network = loaded or from_files({name: stored.read(store) for name, stored in files.items()})
        device = torch.device("cuda" if torch.cuda.is_available() and label.gpus_per_actor else "cpu")
        self._teacher = Teacher(network, config.data, label.slice_rows, label.precision, device, label.compile)
        self._judge = Judge(self._teacher, corpora, config.data)
        self._reader = Reader(config)
        self._corpora = corpora
        self._known = known_from and load(*known_from)
        self._keep = label.keep, min(label.top, config.data.classes)
        self._threads = label.threads

    def __call__(self, batch: Batch) -> Batch:
        """One slice in, decoded already or not; the slice and its label table as Arrow IPC bytes out."""
        import torch

        torch.set_num_threads(self._threads)  # OpenMP keeps it per thread, and Ray calls in threads of its own
        slice_ = Slice.of_batch(batch)
        images, reasons, content = decoded(batch) or self._decoded(slice_)
        table = (
            schema.label_table(slice_.image_ids, self._teacher(images), reasons, *self._keep)
            if slice_.view is None
            else self._judge(slice_, images, reasons)
        )
        table = table.append_column(CONTENT, _fixed(content))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        place = {name: batch[name] for name in slice_.as_row()}
        return {**place, TABLE: np.array([sink.getvalue().to_pybytes()], object)}

    def _decoded(self, slice_: Slice) -> tuple[np.ndarray, list[str | None], bytes]:
        content: list[bytes] = []
        images, reasons = self._reader.read(self._corpora, slice_, self._known, content)
        return images, reasons, b"".join(content)


def _fixed(content: bytes) -> pa.Array:
    """Checksums, one behind the other, as a column."""
    kind = pa.binary(DIGEST_BYTES)
    return pa.Array.from_buffers(kind, len(content) // DIGEST_BYTES, [None, pa.py_buffer(content)])
