"""Turns of a method that only note what they are asked: no Ray, no torch, no file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ray_ns.config import GivenTeacher, Training
from ray_ns.evaluate.promotion import Answers
from ray_ns.methods.outcome import Round


@dataclass(frozen=True)
class Made:
    """An artifact by the name of what made it."""

    name: str
    validation: float = 0.0
    images: int = 0
    copies: int = 0
    parameters: int = 1
    folder: str = ""
    weights_sha256: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return self.name

    @property
    def model(self) -> str:
        return f"of {self.name}"

    def top1(self, corpus: str) -> float:
        return {"validation": self.validation, "test": 1 - self.validation}[corpus]  # test must choose nothing

    def top5(self, corpus: str) -> None:
        return None

    def answers(self, corpus: str) -> Answers:
        """Of 100 images the first ones right, each with the same loss."""
        assert corpus == "validation"
        right = np.arange(100) < round(100 * self.validation)
        return right, np.where(right, 0.1, 2.0)


class Scripted:
    """Turns whose networks score as the script says, in the order in which they are trained; ``asked`` is the log."""

    def __init__(self, validation: Sequence[float], control: float = 0.0) -> None:
        self.validation, self._control = validation, control
        self.asked: list[tuple[Any, ...]] = []
        self.told: list[str] = []
        self.exact = self.beside = True

    def tell(self, words: str) -> None:
        self.told.append(words)

    def turn(self, number: int) -> "Scripted.Turn":
        return self.Turn(self, f"rounds/{number}", self.validation[number])

    def control(self, name: str = "") -> "Scripted.Turn":
        return self.Turn(self, f"control-{name}" if name else "control", self._control)

    @dataclass
    class Turn:
        of: "Scripted"
        place: str
        validation: float

        def label(self, teacher: Made, only: Made | None) -> Made:
            self.of.asked.append(("label", self.place, teacher.name, only and only.name))
            return Made(f"labels of {self.place}")

        def select(self, labels: Made, before: Made | None, chosen: Made | None) -> Made:
            asked = ("select", self.place, labels.name, before and before.name, chosen and chosen.name)
            self.of.asked.append(asked)
            return Made(f"selection of {self.place}")

        def train(self, recipe: Training, selection: Made | None, teacher: Made | None) -> Round:
            learned_from = selection and selection.name, teacher and teacher.name
            self.of.asked.append(("train", self.place, recipe.steps, *learned_from))
            return Round(self.place, recipe, Made(self.place), Made(self.place, self.validation), selection)

        def take(self, given: GivenTeacher) -> Round:
            self.of.asked.append(("take", self.place, given.place))
            return Round(self.place, None, Made(self.place), Made(self.place, self.validation))

    def only(self, what: str) -> list[tuple[Any, ...]]:
        return [it[1:] for it in self.asked if it[0] == what]
