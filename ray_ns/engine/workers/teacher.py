"""The teacher as an actor of Ray Data: it loads the network once and labels, or is judged on, slice after slice."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ray_ns import measures
from ray_ns.artifacts.digests import KnownFrom, load
from ray_ns.config import Config, Data, Noise
from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.known import DIGEST_BYTES, parted
from ray_ns.engine import metrics
from ray_ns.engine.workers.slices import CONTENT, Batch, Reader, Slice, alike, decoded, distinct, read_all
from ray_ns.keyed import seed
from ray_ns.labels import schema
from ray_ns.models.voting import ALONE, Voting
from ray_ns.store.commit import StoredObject
from ray_ns.store.objects import ObjectStore

if TYPE_CHECKING:
    from torch import nn

    from ray_ns.models.noised import Noising

TABLE = "table"
NOISED = 0x7EAC4E5  # sets the draws of a teacher's noise apart from those of a training


@dataclass(frozen=True)
class Voter:
    """A network that labels: its files as a commit holds them, how it is fed, how probabilities come of it."""

    files: Mapping[str, StoredObject]
    data: Data
    voting: Voting = ALONE


class TeacherActor:
    """One teacher of the pool, or several as one. ``loaded``: the first one's network, where it is loaded already."""

    def __init__(
        self,
        store: ObjectStore,
        voters: Sequence[Voter],
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
        rates = noise_of(config).rates if label.noised else {}
        device = torch.device("cuda" if torch.cuda.is_available() and label.gpus_per_actor else "cpu")
        how = label.slice_rows, label.precision, device, label.compile
        feeds = distinct(config, [it.data for it in voters])
        self._readers = [Reader(it) for it in feeds]
        self._teachers: list[tuple[Teacher, int]] = []  # with which of the readers feeds it
        for number, it in enumerate(voters):
            own = loaded if number == 0 else None
            network = own or from_files({name: stored.read(store) for name, stored in it.files.items()}, **rates)
            feed = next(at for at, of in enumerate(feeds) if alike(of.data, it.data))
            self._teachers.append((Teacher(network, it.data, *how, it.voting), feed))
        self._noising = noise_of(config).noising(voters[0].data.size) if label.noised else None
        self._judge = Judge(self._teachers[0][0], corpora, config.data)
        self._corpora = corpora
        self._known = known_from and load(*known_from)
        self._keep = label.keep, min(label.top, config.data.classes)
        self._threads = label.threads
        self._busy = Busy()

    def __call__(self, batch: Batch) -> Batch:
        """One slice in, decoded already or not; the slice and its label table as Arrow IPC bytes out."""
        import torch

        torch.set_num_threads(self._threads)  # OpenMP keeps it per thread, and Ray calls in threads of its own
        slice_ = Slice.of_batch(batch)
        metrics.in_worker(slice_.stage)
        images, reasons, content = decoded(batch) or self._decoded(slice_)
        with self._busy.on_slice():
            table = (
                schema.label_table(slice_.image_ids, self._probabilities(slice_, images), reasons, *self._keep)
                if slice_.view is None
                else self._judge(slice_, images[0], reasons)
            )
        _count(reasons)
        table = table.append_column(CONTENT, _fixed(content))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        place = {name: batch[name] for name in slice_.as_row()}
        return {**place, TABLE: np.array([sink.getvalue().to_pybytes()], object)}

    def _decoded(self, slice_: Slice) -> tuple[list[np.ndarray], list[str | None], bytes]:
        return read_all(self._readers, self._corpora, slice_, self._known)

    def _probabilities(self, slice_: Slice, images: Sequence[np.ndarray]) -> np.ndarray:
        """The mean over the teachers, float32 (n, classes); ``images``: by each reader, uint8 (n, H, W, channels).

        A teacher that is noised is alone, and is it where the pool is labelled.
        """
        if self._noising is not None and slice_.stage == "label":
            teacher, feed = self._teachers[0]
            return teacher.noised(images[feed], slice_.image_ids, self._noising)
        found = [teacher(images[feed]) for teacher, feed in self._teachers]
        return found[0] if len(found) == 1 else np.stack(found).mean(0, dtype=np.float32)


@dataclass(frozen=True)
class TeacherNoise:
    """How a teacher is noised where ``label.noised`` asks for it: as the first student is. ``key``: of all draws."""

    noise: Noise
    rates: Mapping[str, float]
    key: int

    def noising(self, size: int) -> "Noising":
        """The noise itself, of images of so many pixels."""
        from ray_ns.models.noised import Noising

        return Noising(self.noise, size, self.key)


def noise_of(config: Config) -> TeacherNoise:
    """Of a run's config."""
    student = config.students[0]
    return TeacherNoise(student.noise, student.model.rates, seed(config.run.seed, NOISED))


class Busy:
    """Tells how long a network works on each slice and idles before it. Two threads may have slices at once.

    Where they overlap, a slice's work counts from the end of the one before: working and idling add up to the time.
    """

    def __init__(self) -> None:
        self._lock, self._at_work = threading.Lock(), 0
        self._ended = time.perf_counter()

    @contextmanager
    def on_slice(self) -> Iterator[None]:
        """While the block runs, the network works on a slice."""
        with self._lock:
            began = time.perf_counter()
            measures.timed("ns_slice_wait_seconds", 0.0 if self._at_work else began - self._ended)
            self._at_work += 1
        try:
            yield
        finally:
            with self._lock:
                before, self._ended = self._ended, time.perf_counter()
                measures.timed("ns_forward_seconds", self._ended - max(began, before))
                self._at_work -= 1


def _count(reasons: Sequence[str | None]) -> None:
    """Count a slice's images. Those that another corpus has get no label and are no quarantine."""
    unreadable, _ = parted(Counter(reason for reason in reasons if reason is not None))
    measures.count("ns_images_labelled", reasons.count(None))
    for reason, images in unreadable.items():
        measures.count("ns_images_quarantined", images, reason=reason)


def _fixed(content: bytes) -> pa.Array:
    """Checksums, one behind the other, as a column."""
    kind = pa.binary(DIGEST_BYTES)
    return pa.Array.from_buffers(kind, len(content) // DIGEST_BYTES, [None, pa.py_buffer(content)])
