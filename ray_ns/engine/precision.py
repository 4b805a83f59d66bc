"""``precision: auto`` is decided once, when a run begins, and recorded: other hardware must not change the result."""

import os
from collections.abc import Mapping
from typing import Any, TypeVar

from ray_ns.config import Config, Label, Training

S = TypeVar("S", Label, Training)


def decide(config: Config, recorded: Mapping[str, Any] | None) -> tuple[Config, dict[str, str]]:
    """The config with every ``auto`` decided, and each decision by the dotted name of its setting.

    ``recorded``: the settings that the run began with; None where it is new. They hold on any machine, so a run that is
    resumed elsewhere computes as it began. For a new run the hardware of this machine decides, where the driver runs.
    """
    found: dict[str, str] = {}

    def decided(section: Any, name: str, gpu: bool, before: Any) -> Any:
        made = of_section(section, gpu, before)
        if made is not section:
            found[f"{name}.precision"] = made.precision
        return made

    before = recorded or {}
    gpu = bool(config.cluster.train_gpus)
    students = before.get("student")
    changes: dict[str, Any] = {
        "label": decided(config.label, "label", bool(config.label.gpus_per_actor), before.get("label")),
    }
    if isinstance(config.teacher, Training):
        changes["teacher"] = decided(config.teacher, "teacher", gpu, before.get("teacher"))
    if isinstance(config.student, list):
        listed = students if isinstance(students, list) else []
        changes["student"] = [
            decided(student, f"student.{at}", gpu, listed[at] if at < len(listed) else None)
            for at, student in enumerate(config.student)
        ]
    else:
        changes["student"] = decided(config.student, "student", gpu, students)
    return config.model_copy(update=changes), found


def of_section(section: S, gpu: bool, recorded: object) -> S:
    """``section`` with its ``precision`` decided: as ``recorded``, its own record, has it, else by this machine."""
    if section.precision != "auto":
        return section
    held = recorded.get("precision") if isinstance(recorded, Mapping) else None
    if held is None:
        from ray_ns.train.precision import fast_precision

        held = fast_precision(gpu)
    return section.model_copy(update={"precision": held})


def in_words(found: Mapping[str, str], config: Config) -> str:
    """The decisions in one line: ``label.precision, teacher.precision: bfloat16``.

    Where the run joins a cluster, the line adds that this machine decided, since workers may have other hardware.
    """
    of_value: dict[str, list[str]] = {}
    for name, value in found.items():
        of_value.setdefault(value, []).append(name)
    line = "; ".join(f"{', '.join(names)}: {value}" for value, names in of_value.items())
    if config.cluster.address or os.environ.get("RAY_ADDRESS"):
        line += ". This machine decided, not the cluster's workers: set them where those have other hardware"
    return line
