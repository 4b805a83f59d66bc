"""Labels alone: what every other method has to beat."""

from ray_ns.config import Config
from ray_ns.methods.noisy_student import Turns, first_teacher, promoted
from ray_ns.methods.outcome import Outcome


def supervised(turns: Turns, config: Config) -> Outcome:
    """Train the teacher's recipe and the student's on labelled images. The student is what is else the fair control."""
    teacher = first_teacher(turns, config)
    student = turns.turn(1).train(config.students[0], None, teacher.network)
    promoted(turns, config, student, teacher)
    return Outcome([teacher, student], config.run.promote)
