"""Which networks an evaluation judges: teacher, control and student of a run, or the one in a folder."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ray_ns.artifacts.report import best_network, report_of
from ray_ns.errors import InputError, IntegrityError
from ray_ns.export.network import Given, given, of_run
from ray_ns.export.so_far import evaluated
from ray_ns.methods.outcome import is_control, nearest
from ray_ns.store import layout
from ray_ns.store.fork import open_run

TEACHER, CONTROL, STUDENT, BEST, ALL = "teacher", "control", "student", "best", "all"
WORDS = (TEACHER, CONTROL, STUDENT, BEST, ALL)
USUAL = (TEACHER, CONTROL, STUDENT)
_TURN = re.compile(rf"(?:rounds/\d+|{layout.CONTROLS})$", re.ASCII)


@dataclass(frozen=True)
class Rival:
    """A network to judge. ``turn``: its folder in the evaluation, empty for one that is no run's.

    ``role``: ``teacher``, ``control``, ``student``, for the rounds besides ``round N``; else ``network``.
    """

    role: str
    turn: str
    given: Given

    def place(self, stage: str) -> str:
        """Prefix of a stage of its."""
        return f"{self.turn}/{stage}" if self.turn else stage


def rivals(place: str, wanted: Sequence[str]) -> list[Rival]:
    """The networks at ``place`` that are ``wanted`` (``WORDS``, or rounds by name); of a run without words ``USUAL``.

    In order of the run's rounds, the control last. The student is the run's best network; where the teacher stayed, the
    student that came nearest (``methods.outcome.nearest``). Raises ``InputError`` where the run has not ended, or has
    no such network.
    """
    store = open_run(place)
    if layout.record(store) is None:
        if wanted:
            raise InputError(f"--network {wanted[0]}: {place} is no run, and has one network. Leave it out.")
        return [Rival("network", "", given(place))]
    report = report_of(store)
    if report is None:
        best_network(store)  # says so
        raise AssertionError("a run without a report has no best network")
    rows = list(report.value(store)["rounds"])
    roles = _roles(rows)
    chosen = {row for word in (wanted or USUAL) for row in _chosen(word, roles, rows, place, bool(wanted))}
    found = []
    for row in rows:
        name = str(row["round"])
        if name not in chosen:
            continue
        network = evaluated(store, name)
        turn = _TURN.search(name)
        if network is None or turn is None:
            raise IntegrityError(f"{store.url}: {name} has no network, and the report names it. Restore it.")
        role = next((it for it, of in roles.items() if of == name), f"round {name.rpartition('/')[2]}")
        found.append(Rival(role, turn[0], of_run(place, store, network)))
    return found


def _roles(rows: Sequence[dict[str, object]]) -> dict[str, str]:
    """The names of the rounds that are teacher, student and control, where there are such."""
    names = [str(row["round"]) for row in rows]
    found = {TEACHER: names[0]}
    student = nearest(rows)
    if student is not None:
        found[STUDENT] = str(student["round"])
    control = next(filter(is_control, names), None)
    return found if control is None else {**found, CONTROL: control}


def _chosen(word: str, roles: dict[str, str], rows: Sequence[dict[str, object]], place: str, asked: bool) -> list[str]:
    names = [str(row["round"]) for row in rows]
    if word == ALL:
        return names
    if word == BEST:
        return [str(row["round"]) for row in rows if row["best"]]
    if word in roles or word in names:
        return [roles.get(word, word)]
    if not asked:
        return []
    raise InputError(f"--network {word}: {place} has none. Expected {', '.join((*roles, BEST, ALL, *names))}.")
