from collections import Counter

import numpy as np
import pytest

from ray_ns.train.sampler import STREAMS, WINDOW, Order


def walk(order: Order, steps: int) -> list[tuple[int, int]]:
    return [slot for step in range(steps) for slot in order.slots(step)]


def test_different_seeds_give_different_orders() -> None:
    sizes = [10] * 10
    walks = {tuple(walk(Order(sizes, 20, seed), 5)) for seed in range(20)}
    assert len(walks) == 20


def test_every_epoch_has_an_order_of_its_own() -> None:
    order = Order([10] * 10, 20, 0)
    slots = walk(order, 20)
    epochs = [tuple(slots[i : i + 100]) for i in range(0, 400, 100)]
    assert len(set(epochs)) == 4
    assert {frozenset(epoch) for epoch in epochs} == {frozenset(epochs[0])}
    assert len(epochs[0]) == len(set(epochs[0]))


def test_a_batch_larger_than_the_corpus_goes_round_it() -> None:
    order = Order([3, 2], 64, 0)
    seen = Counter(walk(order, 5))
    assert len(order.slots(0)) == 64
    assert seen == dict.fromkeys([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)], 64)


def test_a_corpus_of_one_image_works() -> None:
    assert walk(Order([1], 3, 0), 4) == [(0, 0)] * 12


@pytest.mark.parametrize("sizes", [[], [0, 0]])
def test_an_order_of_nothing_is_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="at least one entry"):
        Order(sizes, 4, 0)


def test_visits_without_entries_never_come() -> None:
    assert {visit for visit, _ in walk(Order([0, 3, 0, 0, 2, 0], 5, 0), 10)} == {1, 4}


def test_images_are_shuffled_within_a_visit_and_across_visits() -> None:
    slots = walk(Order([50] * 8, 40, 0), 10)
    first = [entry for visit, entry in slots if visit == slots[0][0]]
    assert first != sorted(first)
    assert len({visit for visit, _ in slots[:40]}) > 4


@pytest.mark.parametrize("batch", [1, 2, 64, 128])
def test_few_visits_are_open_at_a_time(batch: int) -> None:
    # What a stream reads in a row lies in at most one window, or two where one ends.
    size, visits = 20, 256
    order = Order([size] * visits, batch, 0)
    streams = min(batch, STREAMS)
    share = batch // streams
    steps = size // share
    for stream in (0, streams - 1):
        mine = [slot for step in range(steps) for slot in order.slots(step)[stream * share : (stream + 1) * share]]
        assert len(mine) == size
        assert len({visit for visit, _ in mine}) <= WINDOW + 1


def test_sizes_may_be_an_array() -> None:
    assert walk(Order(np.array([4, 5]), 3, 1), 6) == walk(Order([4, 5], 3, 1), 6)


@pytest.mark.parametrize("epochs", [0, 0.5, 0.999, 1000.5])
def test_a_step_anywhere_in_an_epoch_reads_no_window_that_it_does_not_need(
    monkeypatch: pytest.MonkeyPatch, epochs: float
) -> None:
    # A walk from the start of the epoch would read up to 2,000 / 64 / WINDOW windows of each stream.
    sizes, batch = np.full(2000, 500), 4096
    read: list[tuple[int, ...]] = []
    window = Order._read_window
    monkeypatch.setattr(Order, "_read_window", lambda self, *at: read.append(at) or window(self, *at))
    assert len(set(Order(sizes, batch, 0).slots(int(epochs * sizes.sum()) // batch))) == batch
    # The share of a stream lies in one window, or in two where one ends.
    assert STREAMS <= len(read) <= 2 * STREAMS
