import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch

from ray_ns.config import Noise
from ray_ns.corpora.corpus import Corpus, Shard, image_ids
from ray_ns.errors import InputError
from ray_ns.images.augment import per_image
from ray_ns.images.decode import Decode, Reason
from ray_ns.models.loss import noisy_student_loss
from ray_ns.train.data import Batch, Images, Steps, View, batches
from ray_ns.train.visits import visits_of

Pictures = Callable[..., list[bytes]]
Write = Callable[..., Corpus]
DECODE = Decode(16, 1)
CLASSES = 3


def all_ids(sizes: list[int]) -> np.ndarray:
    return np.concatenate([image_ids(ordinal, np.arange(size)) for ordinal, size in enumerate(sizes)])


def own_row(rows: np.ndarray) -> np.ndarray:
    """Targets that tell which row of the target table they are."""
    return np.stack([rows, np.zeros_like(rows), np.zeros_like(rows)], 1).astype(np.float32)


@pytest.fixture
def pool(write_corpus: Write, pictures: Pictures) -> Corpus:
    """20 images in three shards and seven row groups."""
    images = pictures(20, seed=1)
    return write_corpus("pool", [images[:9], images[9:10], images[10:]])


def of(
    corpus: Corpus, copies: list[int] | np.ndarray | None = None, views: tuple[View, ...] = (View(DECODE),)
) -> Images:
    ids = all_ids([sum(corpus.open(shard).group_rows) for shard in corpus.shards])
    many = np.ones(len(ids), int) if copies is None else np.asarray(copies)
    return Images(corpus, visits_of(corpus, ids[many > 0], many[many > 0]), views, own_row)


def test_pixels_and_targets_are_those_of_the_image(pool: Corpus, pictures: Pictures) -> None:
    images = of(pool, [2] * 20)
    originals = [DECODE(data) for data in pictures(20, seed=1)]
    seen: Counter[int] = Counter()
    for visit, size in enumerate(images.sizes):
        for entry in range(size):
            for _ in range(2):  # once more, from memory
                (pixels,), row = images.image(visit, entry)
                np.testing.assert_array_equal(pixels, originals[row])
            seen[row] += 1
    assert seen == dict.fromkeys(range(20), 2)


def test_pixels_are_the_same_where_nothing_fits_in_memory(pool: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = of(pool)
    monkeypatch.setattr("ray_ns.train.data.CACHE_BYTES", 300)
    read = of(pool)
    for visit, size in enumerate(kept.sizes):
        for entry in range(size):
            np.testing.assert_array_equal(read.image(visit, entry)[0][0], kept.image(visit, entry)[0][0])


@pytest.fixture
def damaged(write_corpus: Write, pictures: Pictures) -> Callable[..., Steps]:
    """Steps over 9 images, the seventh no image, of which a share may be unreadable."""
    images: list[bytes | None] = [*pictures(9)]
    images[6] = b"not an image"
    corpus = write_corpus("bad", [images])

    def made(allowed: float, rank: int = 0, world: int = 1) -> Steps:
        visits = visits_of(corpus, all_ids([9]), np.ones(9, int))
        targets = np.eye(CLASSES, dtype=np.float32)[np.arange(9) % CLASSES]
        source = Images(corpus, visits, [View(DECODE)], lambda rows: targets[rows], allowed)
        return Steps([(source, 6)], 1, rank, world, None)

    return made


@pytest.mark.parametrize("loaders", [0, 2])
def test_an_unreadable_image_keeps_its_place_and_teaches_nothing(damaged: Callable[..., Steps], loaders: int) -> None:
    steps = damaged(0.2)
    pixels, targets = [], []
    for batch in batches(steps, 0, 6, loaders):
        pixels.append(batch.images)
        targets.append(batch.targets)
    black, untaught = (torch.cat(some).flatten(1).sum(1) == 0 for some in (pixels, targets))
    assert untaught.sum() == 4, "once in each of four epochs"
    assert torch.equal(black, untaught)
    ((name, why),) = steps.unreadable.items()
    assert name.endswith("bad/00000.parquet row 6")
    assert why == "not_an_image"
    halves = [damaged(0.2, rank, 2)[1] for rank in (0, 1)]
    for field in ("images", "targets"):
        assert torch.equal(torch.cat([getattr(half, field) for half in halves]), getattr(damaged(0.2)[1], field))


def test_a_step_without_the_unreadable_image_learns_what_it_would_alone() -> None:
    logits = torch.randn(3, CLASSES, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1.0]])
    noisy_student_loss(logits, targets, 3, "sum").backward()
    assert logits.grad is not None
    assert logits.grad[1].abs().max() == 0
    assert logits.grad[[0, 2]].abs().min() > 0


@pytest.mark.parametrize("loaders", [0, 1])
def test_more_unreadable_images_than_allowed_are_refused_by_name(damaged: Callable[..., Steps], loaders: int) -> None:
    with pytest.raises(InputError) as caught:
        list(batches(damaged(0.1), 0, 3, loaders))
    for word in ("1 of 9 images cannot be read", "not_an_image 1", "00000.parquet row 6", "data.max_quarantined = 0.1"):
        assert word in str(caught.value)


@pytest.fixture
def steps_of(pool: Corpus, write_corpus: Write, pictures: Pictures) -> Callable[..., Steps]:
    labelled = write_corpus("labelled", [pictures(5, seed=2), pictures(3, seed=3)])

    def made(rank: int = 0, world: int = 1, augment: bool = False, key: int = 7) -> Steps:
        noise = per_image(Noise(), 16) if augment else None
        return Steps([(of(labelled), 4), (of(pool, [1, 2] * 10), 12)], key, rank, world, noise)

    return made


def same(one: Batch, two: Batch) -> bool:
    return torch.equal(one.images, two.images) and torch.equal(one.targets, two.targets) and one.counts == two.counts


def test_a_batch_has_its_labelled_images_first_and_ratio_times_as_many_others(steps_of: Callable[..., Steps]) -> None:
    batch = steps_of()[3]
    assert batch.counts == (4, 12)
    assert batch.images.shape == (16, 16, 16, 1)
    assert batch.images.dtype == torch.uint8
    assert batch.targets.shape == (16, CLASSES)
    assert batch.targets.dtype == torch.float32
    assert batch.targets[:4, 0].max() < 8


@pytest.mark.parametrize("augment", [False, True])
def test_the_workers_shares_make_up_the_one_global_batch(steps_of: Callable[..., Steps], augment: bool) -> None:
    for step in (0, 5):
        whole = steps_of(augment=augment)[step]
        for world in (2, 4):
            shares = [steps_of(rank, world, augment)[step] for rank in range(world)]
            assert {share.counts for share in shares} == {(4 // world, 12 // world)}
            for field in ("images", "targets"):
                parts = [getattr(share, field) for share in shares]
                cut = 4 // world
                joined = torch.cat([part[:cut] for part in parts] + [part[cut:] for part in parts])
                assert torch.equal(joined, getattr(whole, field)), (field, world)


def test_a_batch_is_a_function_of_key_and_step_alone(steps_of: Callable[..., Steps]) -> None:
    steps = steps_of(augment=True)
    walked = [steps[step] for step in range(6)]
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    assert all(same(steps_of(augment=True)[step], walked[step]) for step in (5, 0, 3))
    assert not same(steps_of(augment=True, key=8)[0], walked[0])


def test_the_same_image_is_noised_anew_every_time(write_corpus: Write, pictures: Pictures) -> None:
    one = write_corpus("one", [pictures(1)])
    noised = Steps([(of(one), 8)], 1, 0, 1, per_image(Noise(), 16))
    images = torch.cat([noised[step].images for step in range(3)]).flatten(1)
    assert len({tuple(image.tolist()) for image in images}) > 12


@pytest.mark.parametrize("augment", [False, True])
def test_a_loader_process_gives_the_same_batches(steps_of: Callable[..., Steps], augment: bool) -> None:
    here = list(batches(steps_of(augment=augment), 2, 6, 0))
    there = list(batches(steps_of(augment=augment), 2, 6, 1))
    assert len(here) == len(there) == 4
    assert all(same(one, two) for one, two in zip(here, there, strict=True))


def test_a_finished_training_has_no_batches(steps_of: Callable[..., Steps]) -> None:
    assert list(batches(steps_of(), 8, 8, 0)) == []


class CountedCorpus:
    """400 row groups of 25 images that are but their number, in five digits; no shard on any disk."""

    root = "counted"
    group_rows = [25] * 400

    def __init__(self, by_row: bool) -> None:
        self.shards = (Shard(0, "one", 0, 0),)
        self.by_row = by_row
        self.bytes_read = 0

    def open(self, shard: Shard) -> "CountedCorpus":
        return self

    def images(self, group: int, rows: np.ndarray) -> pa.Array:
        self.bytes_read += 5 * (len(rows) if self.by_row else 25)
        return pa.array([b"%05d" % (25 * group + row) for row in rows])


def number(data: bytes) -> np.ndarray:
    return np.full((1, 1, 1), int(data) % 251, np.uint8)


def walked(
    density: float, batch: int, world: int, rank: int, loaders: int = 0, by_row: bool = False
) -> tuple[Steps, CountedCorpus]:
    """What one worker reads in an epoch, of whole row groups or by row."""
    corpus = CountedCorpus(by_row)
    ids = np.flatnonzero(np.random.default_rng(batch).random(10_000) < density)
    visits = visits_of(corpus, ids, np.ones(len(ids), np.int16))  # type: ignore[arg-type]
    images = Images(corpus, visits, [View(number)], own_row)  # type: ignore[arg-type]
    steps = Steps([(images, batch)], 1, rank, world, None)
    for got in batches(steps, 0, len(ids) // batch, loaders):
        np.testing.assert_array_equal(got.images[:, 0, 0, 0], ids[got.targets[:, 0].numpy().astype(int)] % 251)
    return steps, corpus


@pytest.mark.parametrize(("density", "by_row"), [(0.1, True), (0.5, True), (0.8, False), (1.0, False)])
@pytest.mark.parametrize(("batch", "world"), [(64, 1), (100, 2), (192, 3), (256, 4)])
def test_no_more_than_half_as_much_again_is_read_as_is_used(
    monkeypatch: pytest.MonkeyPatch, density: float, by_row: bool, batch: int, world: int
) -> None:
    monkeypatch.setattr("ray_ns.train.data.CACHE_BYTES", 0)
    steps, corpus = walked(density, batch, world, world - 1, by_row=by_row)
    assert steps.bytes_read == corpus.bytes_read
    assert steps.bytes_used == pytest.approx(5 * 10_000 * density / world, rel=0.1)
    assert steps.bytes_read / steps.bytes_used <= 1.5


def test_loader_processes_do_not_read_each_others_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_ns.train.data.CACHE_BYTES", 0)
    steps, _ = walked(1.0, 128, 1, 0, loaders=4)
    assert steps.bytes_read / steps.bytes_used <= 1.5


def test_a_sparse_selection_of_whole_row_groups_says_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_ns.train.data.CACHE_BYTES", 0)
    steps, _ = walked(0.1, 64, 1, 0)
    assert 9 < steps.bytes_read / steps.bytes_used < 13


def test_what_is_kept_decoded_is_not_read_again() -> None:
    steps, corpus = walked(1.0, 100, 1, 0)
    assert steps.bytes_read == corpus.bytes_read
    again = list(batches(steps, 100, 120, 0))
    assert sum(batch.bytes_read for batch in again) == 0
    assert sum(batch.bytes_used for batch in again) == 20 * 100 * 5


def test_held_row_groups_never_take_more_than_their_bytes(
    pool: Corpus, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_ns.train.data.CACHE_BYTES", 0)
    monkeypatch.setattr("ray_ns.train.data.HELD_BYTES", 1500)
    images = of(pool)
    images.room = 100
    originals = [DECODE(data) for data in pictures(20, seed=1)]
    read = []
    for _ in range(2):
        for visit, size in enumerate(images.sizes):
            for entry in range(size):
                (pixels,), row = images.image(visit, entry)
                np.testing.assert_array_equal(pixels, originals[row])
        read.append(images.bytes_read)
    assert images.bytes_used == 2 * sum(map(len, pictures(20, seed=1)))
    assert read[1] == 2 * read[0] >= images.bytes_used


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("loaders", "world"), [(2, 1), (3, 4), (5, 1), (40, 4)])
def test_any_number_of_loader_processes_gives_the_same_batches(
    steps_of: Callable[..., Steps], loaders: int, world: int
) -> None:
    alone = list(batches(steps_of(world - 1, world, True), 2, 5, 0))
    many = list(batches(steps_of(world - 1, world, True), 2, 5, loaders))
    assert len(alone) == len(many) == 3
    assert all(same(one, two) for one, two in zip(alone, many, strict=True))


PLAIN, NOISED = View(DECODE, noised=False), View(DECODE)


@pytest.fixture
def seen(pool: Corpus, write_corpus: Write, pictures: Pictures) -> Callable[..., Steps]:
    """4 labelled images a step, and 12 of the pool in some views."""
    labelled = write_corpus("labelled", [pictures(8, seed=2)])

    def made(*views: View, rank: int = 0, world: int = 1) -> Steps:
        sources = [(of(labelled), 4), (of(pool, [1, 2] * 10, views), 12)]
        return Steps(sources, 7, rank, world, per_image(Noise(), 16))

    return made


def by_view(batch: Batch) -> tuple[torch.Tensor, ...]:
    return batch.images.split(batch.counts)


def test_each_view_of_an_image_is_what_it_would_be_alone(seen: Callable[..., Steps]) -> None:
    both = seen(PLAIN, NOISED)
    for step in range(6):
        batch, plain, noised = both[step], seen(PLAIN)[step], seen(NOISED)[step]
        assert batch.counts == (4, 12, 12)
        assert batch.entries == plain.entries == 16
        assert torch.equal(batch.images, torch.cat([plain.images, noised.images[4:]]))
        assert torch.equal(batch.targets, torch.cat([plain.targets, noised.targets[4:]]))
        assert not torch.equal(plain.images[4:], noised.images[4:])
    assert both.per_step == 16


def test_views_that_are_both_noised_are_noised_apart(seen: Callable[..., Steps]) -> None:
    _, one, other = by_view(seen(NOISED, NOISED)[0])
    assert torch.equal(one, by_view(seen(NOISED)[0])[1])
    assert sum(torch.equal(*pair) for pair in zip(one, other, strict=True)) < 4, "RandAugment leaves some as they are"


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("world", "loaders"), [(2, 0), (4, 0), (1, 2), (1, 5), (2, 3)])
def test_the_shares_make_up_the_batch_view_by_view(seen: Callable[..., Steps], world: int, loaders: int) -> None:
    whole = list(batches(seen(PLAIN, NOISED), 0, 3, 0))
    shares = [batches(seen(PLAIN, NOISED, rank=rank, world=world), 0, 3, loaders) for rank in range(world)]
    for batch, of_workers in zip(whole, zip(*shares, strict=True), strict=True):
        joined = [torch.cat(parts) for parts in zip(*map(by_view, of_workers), strict=True)]
        assert torch.equal(torch.cat(joined), batch.images)
        assert sum(share.entries for share in of_workers) == 16
        assert [share.first_slots for share in of_workers] == [
            (rank * 4 // world, rank * 12 // world) for rank in range(world)
        ]


@pytest.mark.parametrize(("kept", "each"), [(True, 1), (False, 3)])
def test_an_image_is_read_once_for_its_views_and_decoded_once_for_those_that_decode_alike(
    pool: Corpus, monkeypatch: pytest.MonkeyPatch, kept: bool, each: int
) -> None:
    class Counted(Decode):
        def __call__(self, data: bytes | None) -> np.ndarray | Reason:
            decoded.append(self)
            return super().__call__(data)

    decoded: list[Decode] = []
    if not kept:
        monkeypatch.setattr("ray_ns.train.data.CACHE_BYTES", 0)
    small, large = Counted(16, 1), Counted(16, 1, "none")
    read = {}
    for views in ((View(small),), (View(small, noised=False), View(large), View(small))):
        decoded.clear()
        steps = Steps([(of(pool, views=views), 20)], 7, 0, 1, None)
        for _ in batches(steps, 0, 3, 0):
            pass
        ways = {view.decode for view in views}
        assert {way: decoded.count(way) for way in ways} == dict.fromkeys(ways, 20 * each)
        read[len(views)] = steps.bytes_read, steps.bytes_used
    assert read[1] == read[3]


def test_an_unreadable_image_is_black_and_untaught_in_every_view(write_corpus: Write, pictures: Pictures) -> None:
    images: list[bytes | None] = [*pictures(9)]
    images[6] = b"not an image"
    views = (PLAIN, View(Decode(16, 1, "none")))
    corpus = write_corpus("bad", [images])
    visits = visits_of(corpus, all_ids([9]), np.ones(9, int))
    source = Images(corpus, visits, views, lambda rows: np.ones((len(rows), CLASSES), np.float32), 0.2)
    steps = Steps([(source, 9)], 1, 0, 1, None)
    for _ in range(2):  # and from memory
        batch = steps[0]
        black, untaught = batch.images.flatten(1).sum(1) == 0, batch.targets.sum(1) == 0
        assert black.nonzero()[:, 0].tolist() == untaught.nonzero()[:, 0].tolist()
        first, second = black.nonzero()[:, 0].tolist()
        assert second == first + 9
    assert list(source.unreadable.values()) == ["not_an_image"]
