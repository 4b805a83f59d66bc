"""Keyed randomness: pure functions whose values old runs rely on."""

import numpy as np
import pytest

from ray_ns.keyed import hashes, permutation, seed


def test_seed_is_splitmix64() -> None:
    assert seed(0) == 0xE220A8397B1DCDAF  # the first output of the published generator for state 0


@pytest.mark.parametrize(
    ("one", "other"),
    [((1, 2), (2, 1)), ((1,), (1, 0)), ((0,), ()), ((0, 1), (1,)), ((-1,), (1,)), ((2**63,), (2**62,))],
)
def test_seeds_of_different_keys_differ(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    assert seed(*one) != seed(*other)


@pytest.mark.parametrize("key", [(), (0,), (-5, 3), (2**64 - 1, 2**70, 7)])
def test_a_seed_fits_64_bits(key: tuple[int, ...]) -> None:
    assert 0 <= seed(*key) < 2**64


def test_orders_that_old_runs_were_made_with_do_not_change() -> None:
    assert seed(1, 2, 3) == 15020427595393229491
    assert hashes(np.array([0, 1, 2**40]), 7).tolist() == [
        8409816773569330625,
        4369894418777901244,
        8392703869070992088,
    ]
    assert permutation(8, 7).tolist() == [7, 3, 1, 6, 0, 2, 5, 4]


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_a_permutation_holds_every_number_once(count: int) -> None:
    order = permutation(count, 3, 1)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(count))


def test_permutations_of_two_keys_are_unrelated() -> None:
    ranks = np.corrcoef(permutation(4096, 0, 1), permutation(4096, 0, 2))[0, 1]
    assert abs(ranks) < 0.05
    assert (permutation(4096, 0, 1) == permutation(4096, 0, 2)).sum() < 10


def test_a_hash_depends_on_its_value_alone_not_on_its_neighbours() -> None:
    values = np.array([5, -1, 2**62, 0], np.int64)
    together = hashes(values, 9)
    assert together.dtype == np.uint64
    assert [int(hashes(values[[k]], 9)[0]) for k in range(4)] == together.tolist()
    assert np.array_equal(hashes(values[::-1], 9), together[::-1])


def test_hashes_are_uniform_in_every_bit() -> None:
    drawn = hashes(np.arange(4096), 11)
    shares = [float(((drawn >> np.uint64(bit)) & np.uint64(1)).mean()) for bit in range(64)]
    assert max(abs(share - 0.5) for share in shares) < 0.05  # 6 standard deviations
    assert len(set(drawn.tolist())) == 4096
