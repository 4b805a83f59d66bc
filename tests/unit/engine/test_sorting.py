"""What is said of how many more images to sort holds, whether they are a corpus of their own or held out."""

import re
from pathlib import Path

import pytest
from support.labelled_folders import as_class_folders
from support.tiny_run import write_tiny

from ray_ns.corpora.hold_out import drawing
from ray_ns.engine import preflight
from ray_ns.engine.opening import drive
from ray_ns.engine.sorting import advised
from ray_ns.evaluate.verdict import ENOUGH, Verdict
from ray_ns.export.verdicts import Judged


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("sorting"))


@pytest.fixture
def folders(tiny: Path, tmp_path: Path) -> list[str]:
    """Overrides for 40 labelled images, of which others are held out."""
    root = as_class_folders(tiny, tmp_path / "classes")
    return [f"labelled={root}", "validation=null", "test=null", "data.classes=null", f"run.dir={tmp_path / 'run'}"]


UNSEEN = Verdict(10, 10.0, -20.0, 40.0, (2, 1), 1.0)  # the two disagree on 3 of 10 images


def test_labelled_images_are_asked_for_where_others_are_held_out_of_them(tiny: Path, folders: list[str]) -> None:
    with drive(str(tiny), folders, "plain") as run:
        told, _ = preflight.what_shows(run)
        judged = [Judged("rounds/1", it, "test", UNSEEN) for it in ("rounds/0", "control")]
        better = Judged("rounds/1", "rounds/0", "test", Verdict(10, 70.0, 20.0, 90.0, (7, 0), 0.015625))
        unseen, _, seen = advised(run, [*judged, better])
    found = re.findall(r"sort about ([\d,]+) more labelled images \(([\d,]+) in all hold 961 out for it\)", told)
    assert len(found) == 2, told
    more, whole = (int(it.replace(",", "")) for it in found[0])
    assert whole == more + 40
    assert 10 * drawing("auto", whole, 10)(whole // 10) == pytest.approx(ENOUGH, abs=10)
    assert seen.more == ""
    assert seen.in_words == seen.verdict.in_words
    # Three times as many, because they disagree on three tenths: more than auto holds out.
    assert unseen.in_words.endswith(
        "on so few; give 2,882 test images of your own (data.held_out: auto holds out 1,000 at most) to see 2 points"
    )
    assert unseen.as_json()["more"] == unseen.more


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.held_out=0.5", "sort about 3,"),
        ("data.held_out=2", "give 961 validation images of your own, or data.held_out: 194"),
    ],
)
def test_each_way_to_hold_out_has_its_advice(tiny: Path, folders: list[str], override: str, words: str) -> None:
    with drive(str(tiny), [*folders, override], "plain") as run:
        assert words in preflight.what_shows(run)[0]


def test_a_corpus_of_its_own_is_what_to_sort_into(tiny: Path, tmp_path: Path) -> None:
    with drive(str(tiny), [f"run.dir={tmp_path / 'run'}"], "plain") as run:
        (found,) = advised(run, [Judged("rounds/1", "rounds/0", "test", Verdict(100, 1.0, -4.0, 6.0, (3, 2), 1.0))])
        assert found.in_words.endswith("on so few; sort 861 more test images to see 2 points")
        assert "sort 861 more validation images" in preflight.what_shows(run)[0]
