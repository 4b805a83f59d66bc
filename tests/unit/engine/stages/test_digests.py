"""What a run knows of its labelled, validation and test images, and that none of them is learnt from the pool."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.tiny_run import write_tiny

from ray_ns.artifacts.digests import Digests, load
from ray_ns.config import Config
from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.known import Known, check_of, digest_of, packed
from ray_ns.engine.opening import drive
from ray_ns.engine.stages import digests, label
from ray_ns.engine.workers.slices import CONTENT, Piece, Reader, cut, decode_slice
from ray_ns.errors import InputError
from ray_ns.labels import schema
from ray_ns.store.commit import Output, find_commit
from ray_ns.store.objects import open_store


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("digests"))


def images_of(corpus: Corpus) -> list[bytes]:
    readers = [corpus.open(shard) for shard in corpus.shards]
    return [it for one in readers for group, _ in enumerate(one.group_rows) for it in one.images(group).to_pylist()]


def loaded(run: Path) -> Known:
    store = open_store(str(run))
    commit = find_commit(store, digests.Digest.name)
    assert commit is not None
    return load(*Digests(commit).known_from(store))


@pytest.mark.parametrize("held_out", [False, True])
def test_a_run_that_begins_keeps_the_digests_of_all_its_labelled_images(
    tiny: Path, tmp_path: Path, held_out: bool
) -> None:
    words = [f"run.dir={tmp_path / 'run'}"]
    if held_out:
        words += [f"labelled={tiny.parent / 'data/test'}", "validation=null", "test=null"]
    with drive(str(tiny), words, "plain") as session:
        known = loaded(tmp_path / "run")
        for name in ("labelled", "validation", "test"):
            assert {known(it) for it in images_of(session.corpora[name])} == {f"in_{name}"}
        assert {known(it) for it in images_of(session.corpora["pool"])} == {None}
    before = (tmp_path / "run/digests/commit.json").read_bytes()
    with drive(str(tiny), words, "plain") as session:
        made = digests.known_images(session)
        assert made is not None
        assert made.commit == find_commit(session.store, digests.Digest.name)
    assert (tmp_path / "run/digests/commit.json").read_bytes() == before


def test_a_run_killed_before_it_kept_them_reads_the_same_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with drive(str(tiny), [f"run.dir={tmp_path / 'whole'}"], "plain"):
        pass
    with monkeypatch.context() as patch:
        patch.setattr("ray_ns.engine.opening.known_images", lambda *_: None)
        with drive(str(tiny), [f"run.dir={tmp_path / 'killed'}"], "plain"):
            pass
    assert not (tmp_path / "killed/digests").exists()
    with drive(str(tiny), [f"run.dir={tmp_path / 'killed'}"], "plain") as session:
        digests.known_images(session)
    whole, killed = ((tmp_path / it / "digests/commit.json").read_bytes() for it in ("whole", "killed"))
    assert whole == killed


def test_nothing_is_kept_of_corpora_too_large_to_look_at(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(digests, "READ_BYTES", 1000)
    with drive(str(tiny), [f"run.dir={tmp_path / 'run'}"], "plain") as session:
        assert digests.known_images(session) is None
    assert not (tmp_path / "run/digests").exists()
    assert "Nobody looks for images that both train and evaluate" in capsys.readouterr().err


@pytest.fixture
def mixed(write_corpus: Callable[..., Corpus], pictures: Callable[..., list[bytes]]) -> tuple[Corpus, Known]:
    """A pool of six pictures of which the second and the last are a test and a labelled image; one cannot be read."""
    own = pictures(5)
    known = Known({"labelled": packed([[digest_of(own[4])]]), "test": packed([[digest_of(own[1])]])})
    return write_corpus("pool", [[own[0], own[1], b"no image"], [own[2], own[3], own[4]]]), known


EXPECTED = [None, "in_test", "not_an_image", None, None, "in_labelled"]


def outcomes(
    config: Config, pool: Corpus, known: Known | None, only: np.ndarray | None = None
) -> tuple[list[str | None], list[np.ndarray]]:
    reader = Reader(config)
    reasons, images = [], []
    for shard in pool.shards:
        for it in cut("pool", Piece(shard), pool.open(shard).group_rows, 2, only):
            pixels, why = reader.read({"pool": pool}, it, known)
            reasons += why
            images += list(pixels)
    return reasons, images


def test_an_image_of_the_pool_that_is_known_gets_its_reason_and_no_pixels(
    config: Config, mixed: tuple[Corpus, Known]
) -> None:
    reasons, images = outcomes(config, *mixed)
    assert reasons == EXPECTED, "one outcome for each image, in order"
    assert [it.any() for it in images] == [reason is None for reason in EXPECTED]
    assert outcomes(config, mixed[0], None)[0] == [None, None, "not_an_image", None, None, None]


def test_so_it_is_in_a_restricted_labelling(config: Config, mixed: tuple[Corpus, Known]) -> None:
    reasons, _ = outcomes(config, *mixed, only=np.array([1, 2]))
    assert reasons == [EXPECTED[at] for at in (1, 2, 4, 5)]


def test_so_it_is_where_tasks_decode(config: Config, mixed: tuple[Corpus, Known], tmp_path: Path) -> None:
    pool, _ = mixed
    store = open_store(str(tmp_path / "store"))
    with_test = {"test": packed([[digest_of(images_of(pool)[1])]])}
    part = Output(store, digests.Digest.name, lambda: None).put(0, with_test, {})
    known_from = (store, tuple(part.objects.items()))
    (only,) = cut("pool", Piece(pool.shards[0]), pool.open(pool.shards[0]).group_rows, 3)
    batch = {name: np.array([value]) for name, value in only.as_row().items()}
    found = decode_slice(batch, {"pool": pool}, [config], known_from)
    assert found["reasons"].tolist() == [["", "in_test", "not_an_image"]]
    assert found[CONTENT].tolist() == [b"".join(map(check_of, images_of(pool)[:3]))]


def test_what_is_known_is_counted_apart_from_what_cannot_be_read(config: Config) -> None:
    probabilities = np.full((6, 2), 0.5, np.float32)
    table = schema.label_table(np.arange(6), probabilities, EXPECTED, "hard", 1)
    reasons = Counter(table["quarantine"].drop_null().to_pylist())
    part = {"rows": 6, "per_class": [3, 0], "quarantine": dict(reasons)}
    summary = label._summary([part, part], 2)
    assert summary["rows"] == 12
    assert summary["quarantine"] == {"not_an_image": 2}
    assert summary["left_out"] == {"in_labelled": 2, "in_test": 2}


def test_what_is_known_is_no_quarantine_and_a_pool_of_nothing_else_is_refused(config: Config) -> None:
    allowed = config.model_copy(update={"data": config.data.model_copy(update={"max_quarantined": 0.0})})
    label.check_pool(allowed, {"rows": 10, "quarantine": {}, "left_out": {"in_test": 9}})
    with pytest.raises(InputError, match=r"data.pool: each of its 10 images is a labelled, validation or test image"):
        label.check_pool(allowed, {"rows": 10, "quarantine": {}, "left_out": {"in_test": 9, "in_labelled": 1}})
    with pytest.raises(InputError, match="1 of 1 images cannot be read"):
        label.check_pool(allowed, {"rows": 10, "quarantine": {"empty": 1}, "left_out": {"in_test": 9}})
