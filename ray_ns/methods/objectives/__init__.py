"""What the networks of each method learn: one objective a file.

They are apart from the methods' loops, which a test turns without torch in milliseconds: an objective is torch.
"""

from ray_ns.config import Fixing, MetaStudent, ReducedStudent, Student, Training, UdaStudent
from ray_ns.methods.objectives.fixres import Fix
from ray_ns.methods.objectives.meta_pseudo_labels import Meta, Reduced
from ray_ns.methods.objectives.noisy_student import NoisyStudent
from ray_ns.methods.objectives.supervised import Supervised
from ray_ns.methods.objectives.uda import Consistent
from ray_ns.train.objective import Objective


def objective_of(recipe: Training, batch: int, selection: bool, weight: float = 1.0) -> Objective:
    """The objective of one training, which learns from a ``selection`` or from ``batch`` labelled images per step.

    ``weight``: of the loss of images of one kind alone, labelled or selected.
    """
    if selection:
        assert isinstance(recipe, Student)
        match recipe:
            case MetaStudent():
                return Meta(recipe)
            case ReducedStudent():
                return Reduced(recipe)
            case UdaStudent():
                return Consistent(recipe)
        return NoisyStudent(recipe, weight)
    return Fix(recipe, batch) if isinstance(recipe, Fixing) else Supervised(recipe, batch, weight)
