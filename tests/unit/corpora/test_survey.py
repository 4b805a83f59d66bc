from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from support import hazards

from ray_ns.corpora.corpus import Corpus, image_ids
from ray_ns.corpora.survey import FIRST, drawn, quantiles, survey
from ray_ns.images.decode import Reason

INJECT = Path(__file__).parents[2] / "faults" / "inject"


@pytest.fixture
def bad(write_corpus: Callable[..., Corpus]) -> Corpus:
    files = [data for data, _ in hazards.hazards().values()]
    return write_corpus("hazards", [files[:20], files[20:]], [[0] * 20, [1] * (len(files) - 20)], group=8)


def test_every_image_is_counted_and_every_bad_one_has_its_reason(bad: Corpus) -> None:
    reasons = [reason for _, reason in hazards.hazards().values()]
    heard: list[int] = []
    found = survey(bad, 2, sample=10, progress=heard.append)
    assert found.images == len(reasons)
    assert found.reasons == Counter(str(reason) for reason in reasons if reason)
    assert found.labels == {0: 20, 1: len(reasons) - 20}
    assert found.formats.total() == found.widths.total() == found.heights.total() == reasons.count(None)
    assert found.bytes.total() == len(reasons)
    assert heard == [8, 16, 20, 28, 36, 44, 51]
    places = [f"{bad.root}/{shard:05d}.parquet row {row}" for shard in range(2) for row in range((20, 31)[shard])]
    for reason in set(reasons) - {None}:
        names = [place for place, it in zip(places, reasons, strict=True) if it is reason]
        assert found.bad[str(reason)] == names[:FIRST]
    assert sorted(found.tiles) == drawn(bad, 10, 0).tolist()
    for number, tile in found.tiles.items():
        reason = reasons[(number >> 32) * 20 + (number & 0xFFFFFFFF)]
        assert tile.label == number >> 32
        assert tile.content is reason if reason else tile.content.shape == (96, 96, 3)


def test_an_image_that_kills_its_decoder_is_one_of_the_bad(
    pictures: Callable[..., list[bytes]],
    write_corpus: Callable[..., Corpus],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = pictures(24)
    corpus = write_corpus("pool", [images[:12], images[12:]], group=4)
    monkeypatch.setenv("RAY_NS_FAULT", f"decode:{sha256(images[14]).hexdigest()}:-")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.syspath_prepend(INJECT)
    monkeypatch.setenv("PYTHONPATH", str(INJECT), prepend=":")
    found = survey(corpus, 2)
    assert found.images == 24
    assert found.bad == {"crashes_decoder": [f"{corpus.root}/00001.parquet row 2"]}
    assert found.formats == {"PNG": 23}


def test_a_sample_is_a_pure_function_of_the_corpus_and_the_seed(write_corpus: Callable[..., Corpus]) -> None:
    corpus = write_corpus("pool", [[b"x"] * 50, [b"y"] * 30])
    ids = np.concatenate([image_ids(0, np.arange(50)), image_ids(1, np.arange(30))])
    assert drawn(corpus, 0, 0).tolist() == []
    assert drawn(corpus, 100, 0).tolist() == ids.tolist()
    sample = drawn(corpus, 20, 0)
    assert len(set(sample.tolist())) == 20
    assert set(sample) <= set(ids)
    assert set(drawn(corpus, 10, 0)) <= set(sample)
    assert drawn(corpus, 20, 1).tolist() != sample.tolist()


def test_quantiles_of_counted_values() -> None:
    values = np.random.default_rng(0).integers(0, 50, 999)
    shares = (0.0, 0.05, 0.5, 0.95, 1.0)
    expected = np.quantile(values, shares, method="inverted_cdf")
    assert quantiles(Counter(values.tolist()), shares) == expected.tolist()
    assert quantiles(Counter()) == []


def test_a_corpus_without_labels_or_rows(write_corpus: Callable[..., Corpus]) -> None:
    found = survey(write_corpus("pool", [[], [None]]), 1)
    assert (found.images, found.labels, found.reasons) == (1, {}, {Reason.EMPTY: 1})
