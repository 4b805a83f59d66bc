"""The stages that a run's turns ask for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from support.settings import MINIMAL

from ray_ns.config import Config
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.run import Run
from ray_ns.engine.turns import Turns
from ray_ns.observe import Reporter
from ray_ns.store import layout
from ray_ns.store.lease import Lease
from ray_ns.store.objects import LocalStore


@dataclass(frozen=True)
class Made:
    """An artifact by the place where it was made."""

    digest: str


@dataclass
class Noted(Run):
    """A run that makes nothing, and notes where it would."""

    asked: list[str] = field(default_factory=list)

    def ensure(self, prefix: str, stage: Any) -> Any:
        self.asked.append(prefix)
        return Made(prefix)


def turns_of(folder: Path, format: int) -> tuple[Turns, Noted]:
    store = LocalStore(folder)
    corpora = {name: Corpus(str(folder), "image", "label", ()) for name in ("labelled", "validation", "test", "pool")}
    run = Noted(Config.model_validate(MINIMAL), store, corpora, (1,), Lease(store), Reporter("plain"), format=format)
    return Turns(run), run


@pytest.mark.parametrize("format", layout.READ)
@pytest.mark.parametrize("restricted", [False, True], ids=["every_round", "filter_once"])
def test_a_round_whose_teacher_is_unchanged_takes_the_labels_and_the_selection_that_exist(
    tmp_path: Path, format: int, restricted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    turns, run = turns_of(tmp_path, format)
    first, second = cast(Any, Made("one network")), cast(Any, Made("another"))
    labels, selections = [], []
    chosen = None
    for number, teacher in enumerate([first, first, second, second, second], 1):
        turn = turns.turn(number)
        labels.append(turn.label(teacher, chosen))
        selections.append(turn.select(labels[-1], labels[-2] if number > 1 else None, chosen))
        chosen = selections[-1] if restricted else None
    made = [it for it in run.asked if it != "digests"]
    again = [f"rounds/{number}/{stage}" for number in range(1, 6) for stage in ("label", "select")]
    if format < layout.FAITHFUL:
        assert made == again
    else:
        assert made == ["rounds/1/label", "rounds/1/select", "rounds/3/label", "rounds/3/select"]
        assert labels[0] is labels[1]
        assert selections[2] is selections[3] is selections[4]
        assert "rounds/2: its teacher is that of rounds/1" in capsys.readouterr().err


@pytest.mark.parametrize("format", layout.READ)
def test_a_run_goes_on_by_the_words_of_its_own_format(tmp_path: Path, format: int) -> None:
    turns, _ = turns_of(tmp_path, format)
    assert turns.exact == (format >= 5)
    assert turns.beside == (format >= 6)
