"""What a training reads is what labels and evaluates."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from support.held import HOLDER

from ray_ns.config import Config
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.predict import Reader
from ray_ns.engine.run import Run
from ray_ns.engine.stages.train import Task, _done, labelled
from ray_ns.store.objects import LocalStore


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_without_a_random_crop_a_training_sees_images_as_a_teacher_does(
    config: Config, write_corpus: Callable[..., Corpus], encode: Callable[..., bytes], fit: str
) -> None:
    ramp = np.add.outer(np.arange(40), 3 * np.arange(60)).astype(np.uint8)
    corpus = write_corpus("labelled", [[encode(Image.fromarray(ramp))]], [[1]])
    config = config.model_copy(update={"data": config.data.model_copy(update={"fit": fit})})
    task = Task(LocalStore(""), "", "", HOLDER, config, config.teacher, 1, {"labelled": corpus}, (), 0, False, None, 0)
    pixels, _ = labelled(task).image(0, 0)
    row = {"corpus": "labelled", "shard": 0, "group": 0, "begin": 0, "rows": 1}
    seen, _ = Reader(config).read({"labelled": corpus}, row)
    np.testing.assert_array_equal(pixels, seen[0])
    assert (int(pixels[0, 0, 0]) > 30) == (fit == "crop"), "the corner is cut off"


GARBAGE = (
    b"",
    b"\x00",
    b"[]",
    b"{}",
    b'{"step":"x"}',
    b'{"step":[1]}',
    b'{"step":null}',
    b'{"step":true}',
    b"[" * 9999,
)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_for_progress_or_seconds_is_no_progress_and_no_seconds(tmp_path: Path, garbage: bytes) -> None:
    store = LocalStore(tmp_path)
    for key in ("t/progress.json", "t/timing.json"):
        store.put(key, garbage)
    assert _done(store, "t") is None
    assert Run.seconds(SimpleNamespace(store=store), "t") == 0.0  # type: ignore[arg-type]
    store.put("t/progress.json", b'{"step":3,"curve":[[1,2]]}')
    assert _done(store, "t") == (3, "")
