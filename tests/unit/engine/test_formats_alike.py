"""The same image bytes are the same pixels and the same reasons, whatever they lie in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.measured import measured
from support.shards import KINDS, write_as

from ray_ns.config import Config
from ray_ns.corpora.corpus import split_ids
from ray_ns.engine.workers.slices import Piece, Reader, cut
from ray_ns.images.decode import Decode


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_and_reasons_are_those_of_the_bytes(
    tmp_path: Path, pictures: Callable[..., list[bytes]], config: Config, kind: str
) -> None:
    images = pictures(300)
    images[7], images[9], images[299] = b"", images[9][: len(images[9]) // 2], b"no image"
    corpora = {"pool": write_as(kind, tmp_path / "pool", images)}
    (shard,) = corpora["pool"].shards
    group_rows = corpora["pool"].open(shard).group_rows
    reader = Reader(config)
    pixels, reasons, ids = [], [], []
    for it in cut("pool", Piece(shard), group_rows, 64):
        with measured() as found:
            some, why = reader.read(corpora, it)
        assert found.total("ns_images_decoded") == it.rows
        assert found.times("ns_decode_seconds") == 1
        pixels.append(some)
        reasons += why
        ids.append(it.image_ids)
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
    chosen = cut("pool", Piece(shard), group_rows, 16, wanted)
    fresh = Reader(config)
    some, why = zip(*(fresh.read(corpora, it) for it in chosen), strict=True)
    read = fresh._shard(corpora["pool"], shard).bytes_read
    assert (read < sum(map(len, images)) / 2) is (kind in {"packed", "tar", "folder"})
    np.testing.assert_array_equal(np.concatenate(some), np.concatenate(pixels)[wanted])
    assert [reason for slice_ in why for reason in slice_] == [reasons[at] for at in wanted]
