"""Which images each method's networks learn from, and how many of them in a step."""

import pytest

from ray_ns.config import Config, Student
from ray_ns.methods.objectives import NoisyStudent, Supervised, objective_of
from ray_ns.train.objective import Source


def test_a_student_learns_from_labelled_images_and_ratio_times_as_many_selected_ones(config: Config) -> None:
    student = config.student.model_copy(update={"batch": 4, "ratio": 3})
    objective = objective_of(student, 4, selection=True)
    assert objective.sources() == (Source("labelled", 4), Source("selection", 12))
    assert objective.networks() == {objective.keeps: student}


@pytest.mark.parametrize("joint", [True, False])
def test_selected_images_are_seen_plain_where_their_input_noise_is_taken_from_them(config: Config, joint: bool) -> None:
    student = Student.model_validate({**config.student.model_dump(), "pseudo_noise": {"input": False}, "joint": joint})
    *labelled, selected = objective_of(student, 4, selection=True).sources()
    assert selected.views == (False,)
    assert [source.views for source in labelled] == [(True,)] * joint


def test_without_a_selection_all_images_of_a_step_are_labelled(config: Config) -> None:
    for recipe, batch in ((config.teacher, config.teacher.batch), (config.student, 16)):  # a teacher, a control
        objective = objective_of(recipe, batch, selection=False)
        assert objective.sources() == (Source("labelled", batch),)
        assert objective.networks() == {objective.keeps: recipe}


def test_a_student_that_is_not_joint_learns_from_as_many_images_all_of_them_selected(config: Config) -> None:
    student = config.student.model_copy(update={"batch": 4, "ratio": 3, "joint": False})
    assert objective_of(student, 4, selection=True).sources() == (Source("selection", 16),)
    assert objective_of(student, 16, selection=False).sources() == (Source("labelled", 16),), "its fair control"
    assert [objective_of(student, 16, one, weight=4) for one in (True, False)] == [
        NoisyStudent(student, 4),
        Supervised(student, 16, 4),
    ]
