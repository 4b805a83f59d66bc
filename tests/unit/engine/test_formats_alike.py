"""The same image bytes are the same pixels and the same reasons, whatever they lie in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.shards import KINDS, write_as

from ray_ns.config import Config
from ray_ns.corpora.corpus import image_ids, split_ids
from ray_ns.engine.predict import Reader, list_slices, slices_of
from ray_ns.images.decode import Decode
from ray_ns.store.objects import LocalStore


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_and_reasons_are_those_of_the_bytes(
    tmp_path: Path, pictures: Callable[..., list[bytes]], config: Config, kind: str
) -> None:
    images = pictures(300)
    images[7], images[9], images[299] = b"", images[9][: len(images[9]) // 2], b"no image"
    corpora = {"pool": write_as(kind, tmp_path / "pool", images)}
    row = {"job": 0, "piece": 0, "corpus": "pool", "shard": 0, "part": 0, "parts": 1}
    reader = Reader(config)
    pixels, reasons, ids = [], [], []
    for it in list_slices(row, corpora, 64, LocalStore("")):
        some, why = reader.read(corpora, it)
        pixels.append(some)
        reasons += why
        ids.append(image_ids(0, it["first"] + it["begin"] + np.arange(it["rows"])))
    assert split_ids(np.concatenate(ids))[1].tolist() == list(range(300))
    assert {at: reason for at, reason in enumerate(reasons) if reason} == {
        7: "empty",
        9: "truncated",
        299: "not_an_image",
    }
    decode = Decode(config.data.size, config.data.channels)
    good = [number for number in range(300) if reasons[number] is None]
    expected = np.stack([decode(images[number]) for number in good])
    np.testing.assert_array_equal(np.concatenate(pixels)[good], expected)
    wanted = np.array([7, *range(20, 300, 9), 299])
    chosen = slices_of(row, corpora["pool"].open(corpora["pool"].shards[0]).group_rows, 16, wanted)
    fresh = Reader(config)
    some, why = zip(*(fresh.read(corpora, it) for it in chosen), strict=True)
    read = fresh._shard(corpora["pool"], corpora["pool"].shards[0]).bytes_read
    assert (read < sum(map(len, images)) / 2) is (kind in {"packed", "tar", "folder"})
    np.testing.assert_array_equal(np.concatenate(some), np.concatenate(pixels)[wanted])
    assert [reason for slice_ in why for reason in slice_] == [reasons[at] for at in wanted]
