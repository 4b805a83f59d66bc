"""Estimate the seconds and bytes of a run: the rate of one step of each stage, times the steps there are."""

from collections.abc import Mapping
from typing import Any

from ray_ns.config import Config, Data, MetaStudent, Student, Training
from ray_ns.corpora.corpus import Corpus
from ray_ns.methods.one_round import controls_of
from ray_ns.models.voting import COUNTS
from ray_ns.observe import in_time

COUNTED = 16  # shards whose rows are counted; the others are assumed to have as many rows per byte
STATES = 4  # tensors per weight in a checkpoint, at most: the weight, its average, two moments of the optimiser
FLOAT = 4  # bytes
ROW = 14  # bytes of a label without its soft part: image_id, label, confidence


def in_all(config: Config, corpora: Mapping[str, Corpus], found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds of each kind of stage, and bytes of the run's directory, from the figures of ``check``.

    ``found``: those figures, by the name of the finding. Starting Ray and selecting take seconds and are left out, and
    so is waiting for machines.
    """
    label, rounds = config.label, config.run.rounds
    pool, scored = rows(corpora["pool"]), sum(rows(corpora[name]) for name in ("validation", "test"))
    rate = found["label"]["img_s"] * label.actors
    students = [_place(config, number) for number in range(rounds)]
    recipe = config.teacher if isinstance(config.teacher, Training) else None
    teacher = "train teacher" if recipe else "teacher"
    controls = 1 + len(controls_of(config)) if config.control.enabled and config.uses_pool else 0
    trained = {
        "teacher": _seconds(recipe, config.data, found[teacher]) if recipe else 0.0,
        "students": sum(
            _seconds(config.students[number], config.data, found[place]) for number, place in enumerate(students)
        ),
        "control": controls * _seconds(config.students[-1], config.data, found[students[-1]]),
    }
    networks = 1 + rounds + controls
    labelled = pool if config.uses_pool else 0
    seconds = {
        "teacher": trained["teacher"],
        "label": (labelled if config.run.mode == "every_round" else labelled / rounds) * rounds / rate,
        "students": trained["students"],
        "control": trained["control"],
        "evaluate": networks * scored / rate / COUNTS[label.views],  # which sees one view of an image
    }
    weights = [found[place]["parameters"] * FLOAT for place in (teacher, *students)]
    together = isinstance(config.students[0], MetaStudent)
    checkpoints = config.cluster.checkpoints_kept * STATES * (sum(weights) if together else max(weights))
    soft = {"hard": 0, "top": 4 * min(label.top, config.data.classes), "full": 2 * config.data.classes}[label.keep]
    size = sum(weights) + checkpoints + rounds * labelled * 2 * (ROW + soft)  # labels, and at most as many selected
    return {"seconds": {name: round(it, 1) for name, it in seconds.items()}, "bytes": int(size)}


def in_words(estimate: Mapping[str, Any]) -> str:
    """``about 1 h 50 min (teacher 12 min, ...); 2.1 GB in run.dir at most``."""
    seconds = estimate["seconds"]
    stages = ", ".join(f"{name} {in_time(it)}" for name, it in seconds.items() if it)
    gigabytes = estimate["bytes"] / 1e9
    size = f"{gigabytes:,.1f} GB" if gigabytes >= 1 else f"{1000 * gigabytes:,.0f} MB"
    return f"about {in_time(sum(seconds.values()))} ({stages}); up to {size} in run.dir"


def rows(corpus: Corpus) -> int:
    """Images of a corpus, estimated from its first shards where there are many."""
    counted = corpus.shards[:COUNTED]
    held = sum(sum(corpus.open(shard).group_rows) for shard in counted)
    if len(counted) == len(corpus.shards):
        return held
    return int(held * sum(shard.size for shard in corpus.shards) / max(sum(shard.size for shard in counted), 1))


def _place(config: Config, number: int) -> str:
    """The name of the finding for the student of a round; the first round is 0."""
    if not isinstance(config.student, list):
        return "train student"
    return f"train student.{min(number, len(config.student) - 1)}"


def _seconds(recipe: Training | Student, data: Data, figures: Mapping[str, Any]) -> float:
    """Seconds of a training, its fine-tuning, and FixRes with its control; steps take longer by their images' area."""
    size, fixres = figures["size"], recipe.fixres
    steps = recipe.steps * size**2 + recipe.finetune.steps * recipe.tuned_on(data).size ** 2
    if fixres.size is not None:
        steps += fixres.steps * (fixres.size**2 + recipe.fixed_from(data) ** 2)
    return float(figures["step_seconds"] * steps / size**2)
