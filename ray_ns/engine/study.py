"""``ray-ns study``: ablations carried out. Each variant is a run of its own, forked from the base run of its seed.

So the teacher, the labels and the selection are made once, where a variant leaves them as they are. A run that is
finished is only read: the same command goes on where an earlier one was stopped, and reads what is whole at once.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ray_ns.artifacts.report import report_of
from ray_ns.artifacts.scores import Scores, right
from ray_ns.config import Config, GivenTeacher, Settings, check_schedules
from ray_ns.config.read import load
from ray_ns.engine import precision, preflight, stages
from ray_ns.engine.fanout import Here
from ray_ns.engine.opening import drive
from ray_ns.engine.predict import few_images, in_this_process
from ray_ns.engine.run import TIMING
from ray_ns.engine.stages.train import Train
from ray_ns.engine.stages.training import COST
from ray_ns.engine.turns import carry_out
from ray_ns.errors import InputError, RepeatingError
from ray_ns.evaluate import verdict
from ray_ns.evaluate.figures import student
from ray_ns.methods.study import ABLATIONS, BASE, STUDIES, Variant, base_of, variants
from ray_ns.observe import Mode, Reporter
from ray_ns.store import hints, layout
from ray_ns.store.commit import find_commit
from ray_ns.store.fork import open_run

ALL = "all"
Carry = Callable[[Config, str | None, Mode], None]


@dataclass(frozen=True)
class Scored:
    """A student: which test images it has ``right``, bool (n,); ``seconds``: of what its run made itself.

    ``memory_mb``: the most that its training took, of the GPU where it ran on one; 0 where that is unknown.
    """

    right: np.ndarray
    seconds: float
    memory_mb: int = 0

    @property
    def top1(self) -> float:
        """Points, 0..100."""
        return 100 * float(self.right.mean())


def study(
    source: str | Path | Mapping[str, Any],
    names: str,
    seeds: str = "1",
    output: str | None = None,
    overrides: Sequence[str] = (),
    mode: Mode = "auto",
    carry: Carry | None = None,
) -> dict[str, Any]:
    """Carry out the studies ``names`` (``noise,ratio``, or ``all``), and compare. JSON values.

    Args:
        source: the config of the run that is varied.
        names: of ``methods.study.STUDIES``.
        seeds: ``0..4``: these; ``3``: so many, from run.seed on. They change the training; and the data where some are
            held out of the labelled images, since each seed draws its own.
        output: where the runs go; None: ``run.dir`` with ``.studies`` behind it.
        overrides: laid over the config.
        mode: how progress is printed.
        carry: what makes a run of a config, forked from another; None: the real thing.

    Raises ``InputError`` for what cannot be studied, before anything is made. A variant that turns out to be
    impossible, such as a selection of no image, is left out and named.
    """
    config = base_of(load(source, overrides))
    if config.data.test is None and config.data.held_out == 0:
        raise InputError("data.held_out: 0 holds no test images out, on which a study compares. Give data.test.")
    asked = chosen(config, names)
    numbers = seeds_of(seeds, config.run.seed)
    folder = (output or f"{config.run.dir}.studies").rstrip("/")
    plans = [_Plan(config, folder, seed, asked) for seed in numbers]
    plans[0].check()
    reporter = Reporter(mode)
    failed = _carried(plans, reporter, mode, carry or carry_here)
    left = _left_out(asked, plans, failed)
    whole = [(name, it) for name, it in _in_order(asked) if (name, it.name) not in left]
    found = {
        (plan.seed, name, of.name): _scored(plan.place(name, of), of.round)
        for plan in plans
        for name, it in whole
        for of in (Variant(BASE), it)
    }
    return {
        "studies": list(asked),
        "seeds": numbers,
        "folder": folder,
        "each_holds_out": config.data.test is None or config.data.validation is None,
        "rows": [_row(name, it, numbers, found) for name, it in whole],
        "left_out": [{"study": name, "variant": it, "why": why} for (name, it), why in left.items()],
        "teacher": [round(_scored(plan.base, 0).top1, 6) for plan in plans],
        "base": [round(_scored(plan.base, None).top1, 6) for plan in plans],
    }


def chosen(config: Config, names: str) -> dict[str, list[Variant]]:
    """The variants of each study that is asked for. Raises ``InputError`` where there is none such, or none to make."""
    given = names.split(",")
    wanted = [name for word in given for name in (ABLATIONS if word == ALL else (word,))]
    unknown = [name for name in wanted if name not in STUDIES]
    if unknown:
        raise InputError(f"{unknown[0]}: no such study. There are {', '.join(STUDIES)}, and {ALL}.")
    found = {name: variants(config, name) for name in dict.fromkeys(wanted)}
    empty = [name for name, rows in found.items() if not rows]
    named = [name for name in empty if name in given]
    if named:
        raise InputError(f"{named[0]}: this config leaves nothing to compare: {STUDIES[named[0]].__doc__}")
    return {name: rows for name, rows in found.items() if rows}


def seeds_of(text: str, first: int) -> list[int]:
    """``0..4``: 0 to 4; ``3``: so many from ``first`` on. Raises ``InputError`` for anything else."""
    low, dots, high = text.partition("..")
    if not low.isdecimal() or (dots and not high.isdecimal()) or len(text) > 20:
        raise InputError(f"--seeds {text}: expected a range such as 0..4, or how many, such as 3.")
    numbers = range(int(low), int(high) + 1) if dots else range(first, first + int(low))
    if not 0 < len(numbers) <= 100:
        raise InputError(f"--seeds {text}: {len(numbers):,} seeds, expected 1 to 100.")
    return list(numbers)


@dataclass(frozen=True)
class _Plan:
    """All runs of one seed, and where they lie."""

    config: Config
    folder: str
    seed: int
    asked: Mapping[str, Sequence[Variant]]

    @property
    def base(self) -> str:
        return f"{self.folder}/base/{self.seed}"

    def place(self, name: str, variant: Variant) -> str:
        """The directory of a variant's run."""
        return self.base if variant.name == BASE else f"{self.folder}/{name}/{variant.folder}/{self.seed}"

    def config_of(self, name: str, variant: Variant) -> Config:
        """The config of a variant's run."""
        told = {"run.seed": self.seed, "run.dir": self.place(name, variant), **variant.settings}
        return load(self.config.model_dump(exclude_unset=True), [f"{key}={json.dumps(it)}" for key, it in told.items()])

    def runs(self) -> list[tuple[str, Variant]]:
        """Every run once, the base's first."""
        found = {self.place(name, it): (name, it) for name, it in [("base", Variant(BASE)), *_in_order(self.asked)]}
        return list(found.values())

    def check(self) -> None:
        """Raise ``InputError`` where a variant cannot be a run: by its settings, or the networks that they change."""
        for name, variant in self.runs():
            changes = any(".model." in setting or setting == "label.noised" for setting in variant.settings)
            try:
                config = self.config_of(name, variant)
                if layout.record(open_run(config.run.dir)) is None:
                    check_schedules(config)
                if changes and not _finished(self.place(name, variant), config):
                    preflight.check_models(config)
            except InputError as error:
                raise InputError(f"study {name}, {variant.name!r}: {error}") from error


def _carried(plans: Sequence[_Plan], reporter: Reporter, mode: Mode, carry: Carry) -> dict[str, str]:
    """Make every run that is not there yet. Returns why, by its place, a variant could not be made."""
    todo = [(plan, name, it) for plan in plans for name, it in plan.runs()]
    failed = {}
    for number, (plan, name, variant) in enumerate(todo, 1):
        place, wanted = plan.place(name, variant), plan.config_of(name, variant)
        if _finished(place, wanted):
            continue
        reporter.note(f"study: run {number} of {len(todo)}: {name}, {variant.name}, seed {plan.seed}")
        try:
            carry(wanted, None if variant.name == BASE else plan.base, mode)
        except InputError as error:
            if variant.name == BASE or isinstance(error, RepeatingError):
                raise
            failed[place] = f"seed {plan.seed}: {error}"
            reporter.warn(f"study {name}, {variant.name}, {failed[place]} It is left out.")
    return failed


def _left_out(
    asked: Mapping[str, Sequence[Variant]], plans: Sequence[_Plan], failed: Mapping[str, str]
) -> dict[tuple[str, str], str]:
    """Why a row cannot be told, by study and variant: it, or what it is compared with, failed on one seed at least."""
    found: dict[tuple[str, str], str] = {}
    for name, it in _in_order(asked):
        why = next((failed[at] for plan in plans if (at := plan.place(name, it)) in failed), None)
        if why is None and (name, it.against) in found:
            why = f"there is no {it.against!r} to compare it with"
        if why is not None:
            found[name, it.name] = why
    return found


def _in_order(asked: Mapping[str, Sequence[Variant]]) -> list[tuple[str, Variant]]:
    return [(name, it) for name, rows in asked.items() for it in rows]


def carry_here(config: Config, fork: str | None, mode: Mode) -> None:
    """Make a run, forked from another: a small one in this process, a larger one through Ray."""
    with drive(config.model_dump(exclude_unset=True), (), mode, fork=fork) as opened:
        if few_images(opened):  # all in this process, to the same bytes: no processes of Ray to start
            opened.execute, opened.fan_out = in_this_process(), Here
            opened.here = config.cluster.worker_counts == range(1, 2) and not config.cluster.train_gpus
        carry_out(opened)


def _finished(url: str, config: Config) -> bool:
    """Whether the run at ``url`` is one of this very config, and has ended. Its images are not looked at again."""
    store = open_run(url)
    record = layout.settings(store)
    if record is None or report_of(store) is None:
        return False
    if isinstance(config.teacher, GivenTeacher) or config.label.others:
        return False  # another network may lie there now: the run itself looks
    settings = Settings.of_run(layout.record(store), Config)
    decided, _ = precision.decide(settings.completed(config), record)
    return not settings.differences(record, decided)


def _scored(url: str, number: int | None) -> Scored:
    """The student of round ``number`` of a run that has ended; None: of its last round."""
    store = open_run(url)
    report = report_of(store)
    turns = [row["round"] for row in report.value(store)["rounds"]] if report else []
    turn = f"rounds/{number}" if number is not None else turns[-1] if turns else ""
    commit = find_commit(store, f"{turn}/evaluate") if turn in turns else None
    if commit is None:
        raise InputError(f"{url}: holds no scores of {turn or 'a round'}. Delete it, and run the study again.")
    predictions = Scores(commit, store).predictions("test")
    if predictions is None:
        raise InputError(
            f"{url}: there are no test images, on which a study compares. Give data.test, or hold some out."
        )
    names = [stage.name for stage in stages.of_turn()]
    spent = [hints.read(store, f"{it}/{name}/{TIMING}").get("seconds") for it in turns for name in names]
    memory = hints.read(store, f"{turn}/{Train.name}/{COST}").get("memory_mb")
    spent_in_all = sum(float(it) for it in spent if hints.number(it))
    return Scored(right(predictions), spent_in_all, int(memory) if hints.number(memory) else 0)


def _row(
    name: str, variant: Variant, seeds: Sequence[int], found: Mapping[tuple[int, str, str], Scored]
) -> dict[str, Any]:
    """A variant beside what it is compared with."""
    own = [found[seed, name, variant.name] for seed in seeds]
    other = [found[seed, name, variant.against] for seed in seeds]
    return {
        "study": name,
        "variant": variant.name,
        "settings": dict(variant.settings),
        **({"set_back": dict(variant.set_back)} if variant.set_back else {}),
        "against": variant.against,
        "top1": [round(it.top1, 6) for it in own],
        "top1_against": [round(it.top1, 6) for it in other],
        "seconds": round(float(np.mean([it.seconds for it in own])), 3),
        "memory_mb": max(it.memory_mb for it in own),
        "published": variant.published,
        **compared(own, other),
    }


def compared(own: Sequence[Scored], other: Sequence[Scored]) -> dict[str, Any]:
    """The mean difference in points, with its 95 % interval ``low`` to ``high`` and what of it that allows to say.

    ``interval``: over ``seeds``, Student's of the differences seed by seed; of one seed over its test ``images``, which
    says nothing of the chance of a training. ``lower``: on how many seeds it is below the other. Over seeds too a word
    needs images that say so: of the test images of all seeds together.
    """
    each = np.array([one.top1 - two.top1 for one, two in zip(own, other, strict=True)])
    told = {"points": round(float(each.mean()), 6), "lower": int((each < 0).sum()), "higher": int((each > 0).sum())}
    mine, theirs = (np.concatenate([it.right for it in of]) for of in (own, other))
    found = verdict.verdict(mine, theirs)
    if len(each) == 1:
        return told | {"low": found.low, "high": found.high, "interval": "images", "word": found.word}
    half = student(len(each) - 1) * float(each.std(ddof=1)) / len(each) ** 0.5
    low, high = (round(told["points"] + it, 6) for it in (-half, half))
    return told | {
        "low": low,
        "high": high,
        "interval": "seeds",
        "word": verdict.word(low, high, verdict.by_images(found.p, 0)),
    }
