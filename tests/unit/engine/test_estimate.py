"""What check says a run takes is what its stages do, added up."""

from collections.abc import Callable

import pytest

from ray_ns.config import Config, Finetune, Fixres, Label
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.estimate import COUNTED, in_all, in_words, rows

RATES = {
    "train teacher": {"step_seconds": 0.5, "size": 16, "parameters": 1000},
    "train student": {"step_seconds": 1.0, "size": 16, "parameters": 2000},
    "label": {"img_s": 10.0},
}


@pytest.fixture
def corpora(write_corpus: Callable[..., Corpus]) -> dict[str, Corpus]:
    return {
        name: write_corpus(name, [[b"x"] * count]) for name, count in {"pool": 60, "validation": 4, "test": 6}.items()
    }


def with_(config: Config, **sections: object) -> Config:
    return config.model_copy(update=sections)


def test_every_stage_is_counted_as_often_as_a_run_does_it(config: Config, corpora: dict[str, Corpus]) -> None:
    # 2 rounds, 8 steps each; teacher, two students and the control are evaluated.
    assert in_all(config, corpora, RATES)["seconds"] == {
        "teacher": 4.0,
        "label": 12.0,
        "students": 16.0,
        "control": 8.0,
        "evaluate": 4.0,
    }


@pytest.mark.parametrize(
    ("changes", "stage", "seconds"),
    [
        ({"label": Label(actors=3)}, "label", 4.0),
        ({"label": Label(actors=2)}, "evaluate", 2.0),
        ({"label": Label(views="five_crops")}, "label", 12.0),  # the rate was measured with all views
        ({"label": Label(views="five_crops")}, "evaluate", 0.8),
        ({"control": {"enabled": False}}, "control", 0.0),
        ({"control": {"enabled": False}}, "evaluate", 3.0),
        ({"run": {"rounds": 1}}, "students", 8.0),
        ({"run": {"mode": "filter_once"}}, "label", 6.0),
        ({"student": {"finetune": Finetune(steps=2, size=32)}}, "students", 32.0),
        ({"teacher": {"fixres": Fixres(steps=2, size=32)}}, "teacher", 9.0),  # 2 steps at 32 px, 2 of the control
    ],
)
def test_what_is_more_or_less_takes_more_or_less(
    config: Config, corpora: dict[str, Corpus], changes: dict[str, object], stage: str, seconds: float
) -> None:
    for name, value in changes.items():
        changed = getattr(config, name).model_copy(update=value) if isinstance(value, dict) else value
        config = with_(config, **{name: changed})
    assert in_all(config, corpora, RATES)["seconds"][stage] == seconds


def test_a_list_of_recipes_has_a_finding_for_each(config: Config, corpora: dict[str, Corpus]) -> None:
    rates = {**RATES, "train student.0": RATES["train student"], "train student.1": RATES["train teacher"]}
    listed = with_(config, student=[config.student, config.student])
    found = in_all(listed, corpora, rates)["seconds"]
    assert (found["students"], found["control"]) == (8.0 + 4.0, 4.0)


def test_the_rows_of_many_shards_are_estimated_by_size(write_corpus: Callable[..., Corpus]) -> None:
    few = write_corpus("few", [[b"x"] * 4] * COUNTED)
    many = write_corpus("many", [[b"x"] * 4] * (3 * COUNTED))
    assert (rows(few), rows(many)) == (4 * COUNTED, 12 * COUNTED)


def test_it_is_said_in_one_line(config: Config, corpora: dict[str, Corpus]) -> None:
    found = {"seconds": {"teacher": 720.0, "label": 4000.0, "control": 0.0}, "bytes": 2_100_000_000}
    assert in_words(found) == "about 79 min (teacher 12 min, label 67 min); up to 2.1 GB in run.dir"
