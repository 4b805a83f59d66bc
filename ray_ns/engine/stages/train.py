"""Train a network: the teacher of round 0, the student of a round, or the control."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ray_ns.artifacts.network import Network
from ray_ns.artifacts.selection import Selection
from ray_ns.config import Fixres, Student, Training
from ray_ns.engine.bench import Bench, Finding, memory_in_words
from ray_ns.engine.resources import local_cpus
from ray_ns.engine.run import Run
from ray_ns.engine.stages.stage import Done
from ray_ns.engine.stages.training import NetworkStage, Plan
from ray_ns.keyed import seed
from ray_ns.models.files import CONFIG
from ray_ns.models.given import unlike
from ray_ns.observe import in_time
from ray_ns.store import layout
from ray_ns.store.commit import Output

if TYPE_CHECKING:
    from ray_ns.train.selected import Selected
    from ray_ns.train.state import TrainState


@dataclass(frozen=True)
class Train(NetworkStage):
    """The committed network of one training.

    Without a ``selection`` it learns from labelled images only. A student's recipe is then the control's: it fills its
    whole batch with them, so that it sees as many images per step as the student does. From FORMAT 4 on its loss
    weighs as much as that of a ``joint`` student (``loss: sum``: 1 + ratio times the mean), from FORMAT 5 on without
    ``joint`` too, and then the student's own. ``number`` sets its seed apart from the others'. ``teacher``: whose
    weights a student begins with, if its recipe says so, and from FORMAT 4 on the control.
    """

    recipe: Training
    number: int
    selection: Selection | None = None
    teacher: Network | None = None

    name = "train"

    def plan(self, run: Run) -> Plan:
        # A training does not depend on what is made of its network later: a fork with another FixRes takes it.
        recipe = self.recipe.model_copy(update={"fixres": Fixres()})
        key = seed(run.config.run.seed, self.number)
        if not isinstance(recipe, Student):
            return Plan(run.config, recipe, recipe.batch, key)
        begin = self.teacher if recipe.init == "teacher" else None
        many, fair = 1 + recipe.ratio, run.format >= layout.FAITHFUL
        weighed = fair if recipe.joint else run.format >= layout.EXACT
        weight = many if weighed and recipe.loss == "sum" else 1
        if self.selection is not None:
            alone = 1 if recipe.joint else weight
            return Plan(run.config, recipe, recipe.batch, key, self.selection, begin, weight=alone)
        return Plan(
            *(run.config, recipe, recipe.batch * many, key, None),
            begin=begin if fair and not self._begins_anew(run) else None,
            weight=weight,
        )

    def work(self, run: Run, output: Output) -> Done:
        if self._begins_anew(run):
            run.reporter.note(
                f"{output.prefix}: begins with new weights, since its {self.recipe.model.name} is not the network of "
                f"round 0, with which init: teacher would begin"
            )
        return super().work(run, output)

    def _begins_anew(self, run: Run) -> bool:
        """Whether the control's recipe begins with its teacher's weights, and round 0 is another network."""
        recipe, first = self.recipe, run.config.teacher
        if not isinstance(recipe, Student) or recipe.init != "teacher" or self.selection is not None:
            return False
        if isinstance(first, Training):
            return (recipe.model.name, recipe.model.args) != (first.model.name, first.model.args)
        assert self.teacher is not None, "the control's is the network of round 0"
        return unlike(self.teacher.files[CONFIG].read(run.store), recipe.model, run.config.data) is not None

    @classmethod
    def probe(cls, bench: Bench, turn: int) -> Iterator[Finding]:
        """Turn 0: two steps of the teacher. Turn 1: two steps of each student, on the bench's selection."""
        chosen = bench.chosen if turn and bench.config.uses_pool else None
        for place, recipe in bench.config.recipes().items():
            if turn == 0 and not isinstance(recipe, Student):
                state, finding = two_steps(bench, place, recipe, None)
                bench.teacher = state.result
                yield finding
            elif turn and isinstance(recipe, Student):
                yield two_steps(bench, place, bench.config.as_trained(recipe), chosen)[1]


def two_steps(bench: Bench, place: str, recipe: Training, chosen: "Selected | None") -> "tuple[TrainState, Finding]":
    """One worker's share of a step, twice: the first one pays for what is done but once."""
    from ray_ns.methods.objectives import objective_of
    from ray_ns.models.zoo import parameters
    from ray_ns.train.data import batches
    from ray_ns.train.sources import Sources
    from ray_ns.train.state import TrainState
    from ray_ns.train.step import Step

    config, device = bench.config, bench.device(bool(bench.config.cluster.train_gpus))
    data = recipe.trained_on(config.data)
    many = 1 + recipe.ratio if isinstance(recipe, Student) and chosen is None else 1
    objective = objective_of(recipe, recipe.batch * many, chosen is not None)
    state = TrainState.fresh(objective, data, 0, device)
    workers = config.cluster.worker_counts[0]
    steps = Sources(recipe, data, bench.corpora, chosen).steps(objective.sources(), 0, 0, workers)
    step = Step(objective, data, 0, device, 0, config.cluster.train_microbatch)
    state.step = max(net.delay for net in state.nets.values())  # from where on all of them learn, as in most steps
    for number in range(2):
        began = time.monotonic()
        batch = next(batches(steps, number, number + 1, 0))
        read = time.monotonic() - began
        began = time.monotonic()
        loss = step(state, batch)
        seconds = time.monotonic() - began
    images = len(batch.images)
    loaders = config.cluster.loaders(local_cpus(config) // workers)
    per_step = max(seconds, read / loaders) if loaders else seconds + read
    figures = {
        "model": recipe.model.name,
        "parameters": parameters(state.kept.network),
        "images": images,
        "read_img_s": round(images / read, 1),
        "step_img_s": round(images / seconds, 1),
        "loss": round(loss, 4),
        **bench.memory(device),
        "step_seconds": round(per_step, 6),
        "size": data.size,
    }
    line = (
        f"{recipe.model.name}, {figures['parameters']:,} parameters; a worker's share is {images} images a step: "
        f"read at {figures['read_img_s']:,.0f}, trained at {figures['step_img_s']:,.0f} images/s; "
        f"{recipe.steps:,} such steps take about {in_time(recipe.steps * per_step)}; memory {memory_in_words(figures)}"
    )
    return state, Finding(f"train {place}", line, figures)
