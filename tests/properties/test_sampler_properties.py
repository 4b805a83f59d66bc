import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from ray_ns.keyed import permutation
from ray_ns.train.sampler import STREAMS, WINDOW, Order

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=14).filter(any)
BATCHES = st.integers(1, 24)
SEEDS = st.integers(0, 2**64 - 1)


def entries(sizes: list[int]) -> set[tuple[int, int]]:
    return {(visit, entry) for visit, size in enumerate(sizes) for entry in range(size)}


@given(SIZES, BATCHES, SEEDS)
def test_every_entry_comes_equally_often(sizes: list[int], batch: int, seed: int) -> None:
    # After as many steps as there are entries every stream has turned whole epochs, `batch` of them in all.
    order = Order(sizes, batch, seed)
    seen = Counter(slot for step in range(sum(sizes)) for slot in order.slots(step))
    assert seen == dict.fromkeys(entries(sizes), batch)


@given(SIZES, st.integers(1, 6), SEEDS)
def test_every_entry_comes_once_in_each_epoch(sizes: list[int], steps: int, seed: int) -> None:
    # Where the batch divides the entries an epoch ends with a step.
    total = sum(sizes)
    batch = math.gcd(total, 60 // steps)
    order = Order(sizes, batch, seed)
    for epoch in range(4):
        first = epoch * total // batch
        seen = [slot for step in range(first, first + total // batch) for slot in order.slots(step)]
        assert len(seen) == total
        assert set(seen) == entries(sizes)


@given(SIZES, BATCHES, SEEDS, st.integers(1, 60))
def test_no_entry_runs_ahead_of_another(sizes: list[int], batch: int, seed: int, steps: int) -> None:
    total, streams = sum(sizes), math.gcd(batch, STREAMS)
    order = Order(sizes, batch, seed)
    seen = Counter(slot for step in range(steps) for slot in order.slots(step))
    counts = [seen[slot] for slot in entries(sizes)]
    # A stream is at most one entry off its share, so within one epoch of the others, or one round of short parts.
    assert max(counts) - min(counts) <= 1 + math.ceil(Fraction(2 * streams, total))


@given(SIZES, BATCHES, SEEDS, st.integers(0, 10**6))
def test_a_step_is_a_pure_function_of_the_seed(sizes: list[int], batch: int, seed: int, far: int) -> None:
    far %= 200
    walker = Order(sizes, batch, seed)
    walked = [walker.slots(step) for step in range(far + 1)]
    assert Order(sizes, batch, seed).slots(far) == walked[far]
    assert walker.slots(0) == walked[0]


@given(SIZES, BATCHES, SEEDS, st.integers(0, 50))
def test_the_global_order_is_the_same_for_every_number_of_workers(
    sizes: list[int], share: int, seed: int, step: int
) -> None:
    batch = 4 * share
    whole = Order(sizes, batch, seed).slots(step)
    for world in (2, 4):
        ranks = [Order(sizes, batch, seed).slots(step, rank, world) for rank in range(world)]
        assert {len(slots) for slots in ranks} == {batch // world}
        assert list(itertools.chain(*ranks)) == whole


@given(
    SIZES,
    SEEDS,
    st.lists(st.tuples(st.integers(0, 8), st.integers(1, 9), st.sampled_from([1, 2, 4])), min_size=3, max_size=3),
)
def test_every_entry_comes_once_per_epoch_across_three_crashes_and_other_numbers_of_workers(
    sizes: list[int], seed: int, crashes: list[tuple[int, int, int]]
) -> None:
    # An attempt goes on from a checkpoint, loses the steps after its last one, and the next has other workers.
    batch = 4
    epoch_steps = sum(sizes)  # after so many steps every entry came `batch` times
    kept: list[tuple[int, int]] = []
    at = 0
    for lost, more, world in [*crashes, (0, epoch_steps, 2)]:
        ranks = [Order(sizes, batch, seed) for _ in range(world)]
        for step in range(at, min(at + lost + more, epoch_steps)):
            slots = [slot for rank, order in enumerate(ranks) for slot in order.slots(step, rank, world)]
            if step < at + more:  # the last checkpoint came after these
                kept += slots
        at = min(at + more, epoch_steps)
    whole = Order(sizes, batch, seed)
    assert kept == [slot for step in range(epoch_steps) for slot in whole.slots(step)]
    assert Counter(kept) == dict.fromkeys(entries(sizes), batch)


def walked(sizes: list[int], batch: int, seed: int, step: int) -> list[tuple[int, int]]:
    """The batch of ``step`` as the order is told: epoch after epoch and window after window from the very beginning."""
    total, streams = sum(sizes), math.gcd(batch, STREAMS)
    share = batch // streams
    slots = []
    for stream in range(streams):
        row: list[tuple[int, int]] = []
        for epoch in itertools.count():
            part = (stream + epoch) % streams
            low, high = part * total // streams, (part + 1) * total // streams
            order = permutation(len(sizes), seed, epoch).tolist()
            begins = [0, *itertools.accumulate(sizes[visit] for visit in order)]
            first = max(at for at in range(len(begins)) if begins[at] <= low)
            for window in range(first, len(order), WINDOW):
                last = min(window + WINDOW, len(order))
                places = np.arange(max(low, begins[window]), max(low, min(high, begins[last])))
                for place in places[permutation(len(places), seed, epoch, stream, window)].tolist():
                    at = max(at for at in range(len(begins)) if begins[at] <= place)
                    row.append((order[at], place - begins[at]))
            if len(row) >= (step + 1) * share:
                break
        slots += row[step * share : (step + 1) * share]
    return slots


@given(
    st.lists(st.sampled_from([0, 0, 1, 2, 3, 7]), min_size=1, max_size=40).filter(any),
    st.sampled_from([1, 2, 3, 8, 12, 64, 100, 128]),
    SEEDS,
    st.integers(0, 12),
)
@example([1], 64, 0, 12)
@example([0, 5, 0, 0, 0, 0, 0, 5, 0], 4, 1, 7)
def test_an_entry_is_found_where_the_walk_comes_to_it(sizes: list[int], batch: int, seed: int, step: int) -> None:
    assert Order(sizes, batch, seed).slots(step) == walked(sizes, batch, seed, step)
