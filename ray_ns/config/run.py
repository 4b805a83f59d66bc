"""Settings ``run`` and ``control``: where the run lives, how long it turns, and its fair control."""

from typing import Literal

from pydantic import Field

from ray_ns.config.methods import Method
from ray_ns.config.schema import PathSetting, Positive, Section, earlier, how

Promote = Literal["auto", "always", "validation"]
MOST_ROUNDS = 20


class Run(Section):
    """Where the run lives and how long it turns."""

    dir: PathSetting = how(..., "directory that holds everything this run makes; the same command on it resumes")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of every random choice of the run")
    method: Method = Field(
        "noisy_student",
        description="noisy_student; supervised: teacher and student on labelled images alone; pseudo_label: one round "
        "of hard labels; uda: consistency of two views (section uda); meta_pseudo_labels: a teacher that learns from "
        "its student (section mpl)",
    )
    rounds: Positive = Field(
        2,
        le=MOST_ROUNDS,
        description="turns of the loop after the teacher of round 0, at most; other methods have one",
    )
    mode: Literal["every_round", "filter_once"] = Field(
        "every_round",
        description="every_round: each teacher labels the whole pool, which is filtered again; filter_once: the first "
        "teacher chooses the images, later ones label only those (the paper's way)",
    )
    promote: Promote = earlier(
        "auto",
        {3: "validation"},
        "when a student becomes the teacher; auto: unless the same validation images say that it is worse "
        "(paired top-1, else paired log-loss); always: each time (the paper); validation: with a higher top-1 only",
    )
    patience: Positive = Field(
        1, description="stop after this many rounds in a row whose student did not become the teacher"
    )


class Control(Section):
    """The fair control: the student's own recipe and steps on labelled images only."""

    enabled: bool = Field(True, description="train and report it; a run without it shows no honest gain")
