"""The ablations of Noisy Student: in each variant one thing is otherwise than in a run of one round.

Xie et al. 2020, section 4 and the appendix. ``published`` is the paper's own difference in points of ImageNet top-1. It
says in which direction to look and is no target: networks, data and steps are others.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray_ns.config import Config, MetaPseudoLabels, Method, Training, of_other_steps

BASE = "as configured"
NO_FIGURE = "no figure at hand"


@dataclass(frozen=True)
class Variant:
    """One row. ``settings``: dotted settings that differ from the base run's, and their values.

    ``against``: the variant, of the same study, that it is compared with; ``BASE`` is the run as configured.
    ``round``: whose student it is; None: the last one's. ``run``: the folder of its run, where others share it.
    ``set_back``: those of the settings that its method needs otherwise than the base run has them.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    published: str = ""
    against: str = BASE
    round: int | None = None
    run: str = ""
    set_back: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The name of its run."""
        return self.run or "".join(it if it.isalnum() else "-" for it in self.name)


def base_of(config: Config) -> Config:
    """The run with which all variants are compared: Noisy Student, one round of the first student, no fair control."""
    values = config.model_dump(exclude_unset=True)
    values["student"] = config.plain_students[0].model_dump(exclude_unset=True)
    values["run"] |= {"rounds": 1, "patience": 1, "method": "noisy_student"}
    values["control"] = {"enabled": False}
    return Config.model_validate(values)


def noise(config: Config) -> Iterator[Variant]:
    """Noise on unlabelled images only is taken away, and a teacher that is noised."""
    student = config.students[0]
    there = {
        "input": student.noise.augment != "none" or student.noise.crop != "none" or student.noise.cutout > 0,
        "dropout": student.model.dropout > 0 or student.model.own_rates,
        "drop_path": student.model.drop_path > 0 or student.model.own_rates,
    }
    published = {"input": "-0.5 (130 M images), -0.3 (1.3 M)"}
    for name, word in (("input", "input noise"), ("dropout", "dropout"), ("drop_path", "drop path")):
        if there[name]:
            settings = {f"student.pseudo_noise.{name}": False}
            yield Variant(f"no {word} on pool images", settings, published.get(name, NO_FIGURE))
    if any(there.values()):
        none = {f"student.pseudo_noise.{name}": False for name in there}
        yield Variant("no noise on pool images", none, "-0.8 (130 M images), -0.7 (1.3 M)")
        yield Variant("noised teacher", {"label.noised": True}, "-0.7 (130 M images), -0.2 (1.3 M)")


def targets(config: Config) -> Iterator[Variant]:
    """The teacher's probabilities or its class alone, on confident images and on all."""
    other = "hard" if config.students[0].targets == "soft" else "soft"
    yield Variant(f"{other} labels", {"student.targets": other}, "about 0 on confident images")
    everything = {"select.threshold": 0.0, "select.thresholds": {}}
    yield Variant("soft labels, no threshold", {"student.targets": "soft", **everything}, "safe on unsure images")
    hard = {"student.targets": "hard", **everything}
    yield Variant("hard labels, no threshold", hard, "worse on unsure images", "soft labels, no threshold")


def filtering(config: Config) -> Iterator[Variant]:
    """Every label is kept, however unsure the teacher is."""
    settings = {"select.threshold": 0.0, "select.thresholds": {}}
    yield Variant("no threshold", settings, NO_FIGURE)


def balance(config: Config) -> Iterator[Variant]:
    """All labels over the threshold, once."""
    settings = {"select.balance": False, "select.quotas": {}, "select.rule": "paper"}
    yield Variant("no balance", settings, "-0.3, -0.3, -0.1, 0.0 (B0 to B3)")


def ratio(config: Config) -> Iterator[Variant]:
    """How many pseudo-labelled images there are for a labelled one; each with all its images, in as many steps."""
    told = {1: "-0.6 against 3 : 1", 6: "+0.5 over 3 : 1 (L2)"}
    own = config.students[0].ratio
    for wanted in (1, 3, 6):
        if wanted != own:
            yield Variant(f"ratio {wanted}", {"student.ratio": wanted}, told.get(wanted, "+0.6 over 1 : 1"))


def pool(config: Config) -> Iterator[Variant]:
    """Less unlabelled data."""
    told = {128: -0.6, 64: -0.7, 32: -0.3, 16: -0.1, 4: -0.2}
    for part, points in told.items():
        yield Variant(f"1/{part} of the pool", {"select.pool_share": 1 / part}, f"{points:+.1f} (B4)")


def init(config: Config) -> Iterator[Variant]:
    """The student begins with its teacher's weights, and trains a part of the steps."""
    student, teacher = config.students[0], config.teacher
    if not isinstance(teacher, Training):
        return  # whether it is the student's network is not known here
    settings: dict[str, Any] = {}
    against = BASE
    if _network(student) != _network(teacher):
        settings, against = _size("student", teacher), "the teacher's network, new weights"
        yield Variant(against, settings, "the size: see sizes")
    for part, points in ((0.1, -0.5), (0.4, -0.2), (0.8, -0.1)):
        steps = max(1, round(part * student.steps))
        warm = {"student.init": "teacher", "student.steps": steps, **settings}
        yield Variant(
            f"warm start, {part:.0%} of the steps", warm | _shorter(student, steps), f"{points:+.1f}", against
        )


def joint(config: Config) -> Iterator[Variant]:
    """Pseudo labels first and labels afterwards, instead of both in each step."""
    student = config.students[0]
    alone = {"student.joint": False, "student.finetune.steps": 0}
    yield Variant("pseudo labels alone", alone, "-5.3, -4.8, -4.8, -5.6 (B0 to B3)")
    after = max(1, student.steps // 4)
    tuned = {"lr": student.optimizer.lr / 10, "warmup_steps": 0, "schedule": "cosine", "decay_steps": None}
    optimizer = student.optimizer.model_dump() | tuned
    settings = {f"student.finetune.optimizer.{name}": value for name, value in optimizer.items()}
    first = {"student.joint": False, "student.steps": max(1, student.steps - after), "student.finetune.steps": after}
    settings |= first | _shorter(student, student.steps - after)
    yield Variant("pseudo labels, then labels", settings, "-0.4, -0.5, -0.4, -0.4 (B0 to B3)")


def rounds(config: Config) -> Iterator[Variant]:
    """The student becomes the teacher."""
    for number, points in ((2, 0.5), (3, 0.8)):
        settings = {"run.rounds": 3, "run.patience": 3}
        yield Variant(f"{number} rounds", settings, f"+{points} (L2)", round=number, run="rounds")


def methods(config: Config) -> Iterator[Variant]:
    """Other methods in the place of Noisy Student, on all pool images; labels alone are what else is the control."""
    everything = {"select.threshold": 0.0, "select.thresholds": {}, "select.balance": False, "select.quotas": {}}
    told = {
        "pseudo_label": "-12.3 against Meta Pseudo Labels (CIFAR-10, 4,000 labels)",
        "uda": "-1.6 against Meta Pseudo Labels (CIFAR-10, 4,000 labels)",
        "meta_pseudo_labels": "+0.3 over Noisy Student (CIFAR-10, all labels; the reduced variant)",
    }
    yield Variant("labels alone", {"run.method": "supervised"}, NO_FIGURE)
    back = _set_back(config, "pseudo_label")
    plain = {"run.method": "pseudo_label", "student.targets": "hard", "student.temperature": 1.0, **everything}
    yield Variant("plain pseudo labels", plain | back, told["pseudo_label"], set_back=back)
    back = _set_back(config, "uda")
    yield Variant("UDA", {"run.method": "uda", **everything, **back}, told["uda"], set_back=back)
    if not isinstance(config.teacher, Training) and not config.mpl.reduced:
        return  # nothing says how it would be trained beside the student
    back = _set_back(config, "meta_pseudo_labels")
    meta = {"run.method": "meta_pseudo_labels", **everything, **back}
    if config.mpl.feedback == "none":
        yield Variant("Meta Pseudo Labels, no feedback", meta, NO_FIGURE, set_back=back)
        return
    yield Variant("Meta Pseudo Labels", meta, told["meta_pseudo_labels"], set_back=back)
    silent = {**meta, "mpl.preset": "paper", "mpl.labels": config.mpl.labels, "mpl.feedback": "none"}
    without = config.mpl.model_copy(update={"preset": "paper", "feedback": "none"})
    silent |= {f"mpl.{name}": MetaPseudoLabels.model_fields[name].default for name in without.unread}
    yield Variant("Meta Pseudo Labels, no feedback", silent, NO_FIGURE, "Meta Pseudo Labels", set_back=back)


def _set_back(config: Config, method: Method) -> dict[str, Any]:
    """What ``method`` needs otherwise than the config has it."""
    found, teacher = config.unfit(method), config.teacher
    if method == "meta_pseudo_labels" and not config.mpl.reduced and isinstance(teacher, Training):
        other = of_other_steps(teacher, config.plain_students[0].steps)
        found |= {f"teacher.optimizer.{name}": value for name, value in other.items()}
    return found


def sizes(config: Config) -> Iterator[Variant]:
    """Student and teacher of another size: each gets the other's network."""
    student, teacher = config.students[0], config.teacher
    if isinstance(teacher, Training) and _network(student) != _network(teacher):
        yield Variant("a student of the teacher's size", _size("student", teacher), "-0.5 (B7 to L2)")
        yield Variant("a teacher of the student's size", _size("teacher", student), "better, without a figure at hand")


STUDIES: Mapping[str, Callable[[Config], Iterator[Variant]]] = {
    "noise": noise,
    "targets": targets,
    "filter": filtering,
    "balance": balance,
    "ratio": ratio,
    "pool": pool,
    "init": init,
    "joint": joint,
    "rounds": rounds,
    "sizes": sizes,
    "methods": methods,
}
ABLATIONS = tuple(name for name in STUDIES if name != "methods")  # the paper's: what "all" means


def variants(config: Config, name: str) -> list[Variant]:
    """The rows of one study; none where the config leaves nothing to compare."""
    return list(STUDIES[name](config))


def _network(recipe: Training) -> tuple[str, dict[str, Any]]:
    return recipe.model.name, recipe.model.args


def _size(of: str, like: Training) -> dict[str, Any]:
    """``of`` (teacher, student) gets the network of ``like``; its dropout and drop path stay."""
    return {
        f"{of}.model.name": like.model.name,
        f"{of}.model.args": like.model.args,
        f"{of}.model.pretrained": like.model.pretrained,
        f"{of}.model.sha256": like.model.sha256,
    }


def _shorter(recipe: Training, steps: int) -> dict[str, Any]:
    """A warm-up that takes the same part of fewer steps."""
    return {"student.optimizer.warmup_steps": recipe.optimizer.warmup_steps * steps // recipe.steps}
