"""Who becomes the teacher: by paired top-1, else by paired log-loss, and what is said of it."""

from dataclasses import dataclass

import numpy as np
import pytest

from ray_ns.evaluate.promotion import MISTAKES, Answers, decide, decisions, loss_verdict


@dataclass(frozen=True)
class Said:
    """A network's answers on validation images."""

    of: Answers | None

    def top1(self, corpus: str) -> float | None:
        assert corpus == "validation"
        return None if self.of is None else float(self.of[0].mean())

    def answers(self, corpus: str) -> Answers | None:
        assert corpus == "validation"
        return self.of


def said(right: int, loss: float | np.ndarray | None = None, images: int = 100) -> Said:
    losses = None if loss is None else np.broadcast_to(loss, images).astype(float)
    return Said((np.arange(images) < right, losses))


RNG = np.random.default_rng(0)
NOISE = RNG.normal(0, 0.1, 100)


@pytest.mark.parametrize(
    ("student", "teacher", "promoted", "words"),
    [
        (said(90), said(60), True, "is better than its teacher"),
        (said(60), said(90), False, "is worse than its teacher, which stays"),
        (said(60), said(60), True, "is not shown to be worse"),
        (said(58), said(60), True, "is not shown to be worse"),
        (said(60, 1.0 + NOISE), said(60, 0.5), False, "log-loss +0.5"),
        (said(62, 1.0 + NOISE), said(60, 0.5), False, "log-loss +0.5"),
        (said(58, 0.5 + NOISE), said(60, 1.0), True, "is better than its teacher"),
        (said(60, 0.5 + NOISE), said(60, 0.5), True, "log-loss "),
        (said(90, 1.0 + NOISE), said(60, 0.5), True, "is better"),  # top-1 decides where it can
        (said(60, 0.5), said(90, 1.0 + NOISE), False, "is worse"),
        (Said(None), said(60), True, "there are no answers"),
        (said(60), said(60, 0.5), True, "is not shown to be worse"),
    ],
)
def test_top1_decides_and_log_loss_where_it_cannot(student: Said, teacher: Said, promoted: bool, words: str) -> None:
    found = decide("auto", student, teacher)
    assert found.promoted is promoted
    assert words in found.told
    assert decide("always", student, teacher).promoted


@pytest.mark.parametrize(("right", "exact", "promoted"), [(55, True, True), (55, False, False), (54, True, False)])
def test_five_images_show_no_student_as_worse_but_in_runs_up_to_format_4(
    right: int, exact: bool, promoted: bool
) -> None:
    assert decide("auto", said(right), said(60), exact).promoted is promoted
    found, at = decisions("auto", [said(60), said(right)], exact)
    assert [it.promoted for it in found] == [promoted]
    assert at == int(promoted)


@pytest.mark.parametrize(("right", "promoted"), [(61, True), (60, False), (59, False)])
def test_validation_asks_for_a_higher_top1(right: int, promoted: bool) -> None:
    assert decide("validation", said(right, 0.1), said(60, 0.5)).promoted is promoted


def test_validation_without_images_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs validation images"):
        decide("validation", Said(None), said(60))


def test_each_student_is_compared_with_the_teacher_it_learned_from() -> None:
    found, at = decisions("auto", [said(50), said(90), said(60), said(88)])
    assert [it.promoted for it in found] == [True, False, True]
    assert at == 3
    assert found[2].top1 is not None
    assert found[2].top1.points == -2.0
    assert decisions("auto", [said(50)]) == ([], 0)


def test_the_evidence_is_in_the_report() -> None:
    found = decide("auto", said(60, 1.0 + NOISE), said(60, 0.5)).as_json()
    assert (found["promoted"], found["top1"]["verdict"], found["log_loss"]["verdict"]) == (
        False,
        "cannot tell",
        "worse",
    )
    assert found["log_loss"]["images"] == 100
    assert set(decide("always", said(60), said(60)).as_json()) == {"promoted", "why"}


def test_the_loss_interval_holds_its_level_where_losses_are_skewed() -> None:
    """A teacher that is sure of itself and a student that is not, of the same mean loss: 5 % of verdicts may be wrong.

    Student's interval calls the student worse here in 9.5 % of cases.
    """
    rng, worse, better, runs = np.random.default_rng(1), 0, 0, 300
    for _ in range(runs):
        hard = rng.random(200) < 0.25
        student = np.where(hard, rng.gamma(4, 0.3, 200), rng.gamma(2, 0.1, 200))
        teacher = np.where(hard, rng.gamma(1.5, 1.1, 200), rng.gamma(0.5, 0.1, 200))
        found = loss_verdict((~hard, student), (~hard, teacher))
        assert found is not None
        worse += found.word == "worse"
        better += found.word == "better"
    assert worse < 0.045 * runs
    assert better < 0.045 * runs


def test_unreadable_images_are_left_out_of_the_loss_and_too_few_mistakes_say_nothing() -> None:
    right = np.arange(100) >= MISTAKES
    losses = np.where(np.arange(100) == 50, np.nan, 1.0)
    found = loss_verdict((right, losses + NOISE), (np.ones(100, bool), losses))
    assert found is not None
    assert found.images == 99
    right[0] = True
    assert loss_verdict((right, losses + NOISE), (np.ones(100, bool), losses)) is None
    assert loss_verdict((~right, None), (right, losses)) is None


def test_one_outlier_makes_no_verdict() -> None:
    losses, right = np.full(40, 0.5) + NOISE[:40], np.arange(40) < 20
    outlier = losses + np.where(np.arange(40) == 7, 80.0, 0.0)
    assert loss_verdict((right, outlier), (right, losses)) is None
