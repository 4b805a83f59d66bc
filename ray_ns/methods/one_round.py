"""The methods with one student: plain pseudo labels, UDA, Meta Pseudo Labels. The student's recipe says which it is.

The first teacher labels the pool, and the selection (threshold, balance) says which images the student sees. With
``select.threshold: 0`` and ``select.balance: false`` these are all that can be read and are not known already.

- ``pseudo_label``: the fixed teacher's class of each image, learned beside the labels (Lee 2013; the baseline of Pham
  et al. 2021, section 1).
- ``uda``: consistency of two views; the labels of the pool are not looked at (Xie et al. 2020).
- ``meta_pseudo_labels``: another teacher is trained beside the student, and learns from what its labels did to it; the
  labels of the pool are not looked at (Pham et al. 2021). ``mpl.reduced``: an adjuster changes them instead.
"""

from collections.abc import Mapping

from ray_ns.config import Config, MetaStudent, ReducedStudent, Student, TwoViewStudent
from ray_ns.methods.noisy_student import Turns, first_teacher, promoted
from ray_ns.methods.outcome import Outcome

NO_FEEDBACK, UDA, PSEUDO_LABEL = "no-feedback", "uda", "pseudo-label"


def one_round(turns: Turns, config: Config) -> Outcome:
    """Train a teacher, choose pool images by its labels, train the student as the method says, then the controls."""
    (recipe,) = config.students
    teacher = first_teacher(turns, config)
    turn = turns.turn(1)
    selection = turn.select(turn.label(teacher.network, None), None, None)
    if isinstance(recipe, TwoViewStudent):
        turns.tell(
            f"{config.run.method} learns from the {selection.images:,} pool images that the selection holds, without "
            f"their labels (select.threshold: 0 and select.balance: false choose all)"
        )
    student = turn.train(recipe, selection, teacher.network)
    promoted(turns, config, student, teacher)
    controls = []
    if config.control.enabled:
        controls = [turns.control().train(config.plain_students[0], None, teacher.network)]
        for name, other in controls_of(config, turns.beside).items():
            controls.append(turns.control(name).train(other, selection, teacher.network))
    beside = student if turns.beside else None
    return Outcome([teacher, student], config.run.promote, controls, beside=beside)


def controls_of(config: Config, distinct: bool = True) -> Mapping[str, Student]:
    """The recipes that are trained on the same images beside that of the method, by name.

    Of Meta Pseudo Labels: the same without feedback, UDA alone, plain pseudo labels. None has shown on images that the
    feedback brings something beyond these, so they are always in the table. ``distinct``: without one whose recipe is
    the student's own; False in runs up to FORMAT 5.
    """
    if config.run.method != "meta_pseudo_labels":
        return {}
    (recipe,), (plain,) = config.students, config.plain_students
    assert isinstance(recipe, MetaStudent | ReducedStudent)
    silent = recipe.mpl.model_copy(update={"feedback": "none"})
    found: dict[str, Student] = {
        NO_FEEDBACK: recipe.model_copy(update={"mpl": silent}),
        UDA: config.as_trained(plain, "uda"),
        PSEUDO_LABEL: config.as_trained(plain, "pseudo_label"),
    }
    return {name: it for name, it in found.items() if it != recipe or not distinct}
