"""Schedules of deaths (``support.schedules``): the same for the same seed, in the order of a run, of every victim."""

import pytest
from support.chaos import differs
from support.schedules import AWAY, MOMENTS, STRIKES, VICTIMS, Strike, schedule, seeds

MANY = range(200)


def test_a_schedule_is_a_function_of_its_seed() -> None:
    assert [schedule(seed) for seed in MANY] == [schedule(seed) for seed in MANY]
    assert len({tuple(schedule(seed)) for seed in MANY}) > 190
    assert [str(it) for it in schedule(3)] == [
        "rounds/1/label/done/: the second node dies, another joins",
        "2 x rounds/2/label/done/: the driver is killed",
        "rounds/2/train/checkpoints/: the driver is killed",
    ], "a seed means what it has meant"


def test_every_strike_may_fall_there_and_they_fall_in_the_order_of_the_run() -> None:
    for strikes in map(schedule, MANY):
        assert STRIKES[0] <= len(strikes) <= STRIKES[1]
        assert [it.moment for it in strikes] == sorted({it.moment for it in strikes})
        for it in strikes:
            _, most, victims = MOMENTS[it.moment]
            assert it.victim in victims
            assert 1 <= it.count <= most
            assert it.seconds == 0 if it.victim != "store" else AWAY[0] <= it.seconds <= AWAY[1]


@pytest.mark.parametrize("played", [range(1, 13), MANY])
def test_the_seeds_that_are_played_meet_every_victim(played: range) -> None:
    assert {it.victim for seed in played for it in schedule(seed)} == set(VICTIMS)


def test_every_moment_comes_with_each_of_its_victims() -> None:
    met = {(it.prefix, it.victim) for seed in MANY for it in schedule(seed)}
    assert met == {(prefix, victim) for prefix, _, victims in MOMENTS for victim in victims}


def test_a_strike_waits_for_so_many_keys_or_for_what_comes_after_them() -> None:
    strike = Strike("driver", "rounds/1/label/done/", 2)
    one = ["rounds/1/label/plan.json", "rounds/1/label/done/000000.json"]
    assert not strike.is_due(one)
    assert strike.is_due([*one, "rounds/1/label/done/000001.json"])
    assert strike.is_due([*one, "rounds/1/select/plan.json"])
    assert not strike.is_due(["rounds/0/train/plan.json", "rounds/1/label/plan.json"])


def test_seeds_are_a_range_or_one() -> None:
    assert list(seeds("3..5")) == [3, 4, 5]
    assert list(seeds("7")) == [7]
    with pytest.raises(AssertionError, match=r"give FIRST\.\.LAST"):
        seeds("5..3")


def test_a_commit_that_is_another_or_lost_or_too_many_is_named() -> None:
    whole = {"rounds/0/train": b"a", "report": b"b"}
    assert differs(dict(whole), whole) == ""
    assert differs({**whole, "report": b"c"}, whole) == "NOT EQUAL: report"
    assert differs({"report": b"b", "control/train": b"d"}, whole) == "NOT EQUAL: control/train, rounds/0/train"
