"""What a network says of the images of a slice, beside what they are: the rows that an evaluation is made of."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ray_ns.config import Data
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.workers.slices import LOGITS, Slice
from ray_ns.evaluate.corruptions import corrupted
from ray_ns.evaluate.perturbations import frames
from ray_ns.evaluate.suites import CLEAN, among_of, attack_of, corruption_of, perturbation_of
from ray_ns.labels import schema

if TYPE_CHECKING:
    from ray_ns.models.predictor import Teacher  # which loads torch, and a run that is finished needs none

TOP = 5
TRUTH, LOSS, FRAMES = "truth", "loss", "frames"
LEAST = float(np.finfo(np.float32).tiny)  # a smaller probability of the truth counts as this: a loss of 87.3


class Judge:
    """Judges slices of labelled corpora, whose classes are the network's."""

    def __init__(self, teacher: "Teacher", corpora: Mapping[str, Corpus], data: Data) -> None:
        self._teacher, self._corpora, self._data = teacher, corpora, data
        self._labels = lru_cache(4)(self._labels_of)

    def __call__(self, slice_: Slice, images: np.ndarray, reasons: Sequence[str | None]) -> pa.Table:
        """A row per image: ``image_id``, ``truth``, the columns of a label table with its ``top_label``, ``loss``.

        In the view ``LOGITS`` it has the logits, float32, beside the truth and why an image is unreadable. Of a
        perturbation these are of the first frame, and ``frames`` has the ``TOP`` classes of every frame.

        ``images``: uint8 (n, size, size, channels). ``reasons``: why an image is unreadable, or None (n,).
        """
        if slice_.view == LOGITS:
            return self._logits(slice_, images, reasons)
        truth, top = self._truth(slice_), min(TOP, self._data.classes)
        perturbation = perturbation_of(slice_.view or CLEAN)
        said = None
        if perturbation is None:
            probabilities = self._probabilities(slice_, images, truth)
        else:
            of_frames = frames(images, slice_.image_ids.tolist(), *perturbation)
            said, probabilities = self._sequences(of_frames, top)
        table = schema.label_table(slice_.image_ids, probabilities, reasons, "top", top)
        bad = np.array([reason is not None for reason in reasons], bool)
        of_truth = probabilities[np.arange(len(truth)), truth]
        loss = -np.log(np.maximum(of_truth, LEAST), dtype=np.float32)
        table = table.add_column(1, TRUTH, pa.array(truth.astype(np.int16)))
        table = table.append_column(LOSS, pa.array(loss, mask=bad))
        return table if said is None else table.append_column(FRAMES, said)

    def _logits(self, slice_: Slice, images: np.ndarray, reasons: Sequence[str | None]) -> pa.Table:
        columns = {
            TRUTH: pa.array(self._truth(slice_).astype(np.int16)),
            "quarantine": pa.array(reasons, pa.string()),
            LOGITS: pa.FixedSizeListArray.from_arrays(
                pa.array(self._teacher.logits(images).reshape(-1)), self._data.classes
            ),
        }
        return pa.table(columns)

    def _sequences(self, of_frames: Iterator[np.ndarray], top: int) -> tuple[pa.Array, np.ndarray]:
        """The ``top`` classes of each frame, one list per image, and the probabilities of the first frame.

        Those are NaN where the probabilities of any frame are.
        """
        found, first = [], None
        for images in of_frames:
            probabilities = self._teacher(images)
            first = probabilities.copy() if first is None else first
            first[np.isnan(probabilities).any(1)] = np.nan
            found.append(schema.largest(probabilities, top).astype(np.int16))
        assert first is not None, "every sequence has a frame"
        rows = np.stack(found, 1)
        # Lists of any length: sequences differ in theirs, and all parts are to have one schema.
        kind = pa.list_(pa.field("element", pa.int16(), nullable=False))
        ends = pa.array(np.arange(len(rows) + 1) * rows.shape[1] * top, pa.int32())
        return pa.ListArray.from_arrays(ends, pa.array(rows.reshape(-1)), type=kind), first

    def _probabilities(self, slice_: Slice, images: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Of what the slice's view makes of the images, float32 (n, classes)."""
        view = slice_.view or CLEAN
        attack, corruption = attack_of(view), corruption_of(view)
        if attack is not None:
            return self._teacher.attacked(images, truth, attack)
        if corruption is not None:
            images = corrupted(images, slice_.image_ids.tolist(), *corruption)
        return self._teacher(images, among_of(view, self._data.classes))

    def _truth(self, slice_: Slice) -> np.ndarray:
        """The true classes of a slice, int64 (rows,)."""
        if not slice_.rows:
            return np.zeros(0, np.int64)
        found: np.ndarray = self._labels(slice_.corpus, slice_.shard)[slice_.first + slice_.in_group]
        return found

    def _labels_of(self, name: str, ordinal: int) -> np.ndarray:
        corpus = self._corpora[name]
        labels = corpus.open(corpus.shard(ordinal)).labels()
        return labels.to_numpy(zero_copy_only=False).astype(np.int64)
