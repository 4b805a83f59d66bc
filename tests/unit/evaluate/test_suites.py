"""The words after --on."""

import numpy as np
import pytest

from ray_ns.errors import InputError
from ray_ns.evaluate.attacks import Attack
from ray_ns.evaluate.suites import Suite, among, among_of, attack_of, corruption_of, parse, parse_all


@pytest.mark.parametrize(
    ("word", "kind", "source", "view"),
    [
        ("test", "clean", "test", "clean"),
        ("./test", "clean", "./test", "clean"),
        ("a@b", "clean", "a@b", "clean"),
        ("s3://bucket/x", "clean", "s3://bucket/x", "clean"),
        ("fgsm:0.03", "fgsm", "test", "fgsm:0.03"),
        ("fgsm:8/255@s3://b/x", "fgsm", "s3://b/x", "fgsm:0.0313725"),
        ("pgd:0.1@validation", "pgd", "validation", "pgd:0.1:10:0.025"),
        ("among@imagenet-a", "among", "imagenet-a", "among"),
        ("pgd:0.1:5", "pgd", "test", "pgd:0.1:5:0.05"),
    ],
)
def test_a_word_is_a_suite(word: str, kind: str, source: str, view: str) -> None:
    assert parse(word, 32, 3) == [Suite(word, kind, source, (view,))]


@pytest.mark.parametrize(
    "word",
    [
        "",
        "fgsm",
        "fgsm:",
        "fgsm:2",
        "fgsm:0",
        "fgsm:nan",
        "fgsm:1:2",
        "pgd:0.1:0",
        "pgd:0.1:x",
        "fgsm:0.1@",
        "corruptions:3",
    ],
)
def test_a_word_that_cannot_be_is_refused_with_what_was_expected(word: str) -> None:
    with pytest.raises(InputError, match=r"--on.*Expected"):
        parse(word, 32, 3)


def test_the_same_twice_is_refused_however_it_is_written() -> None:
    with pytest.raises(InputError, match=r"--on fgsm:0\.50@test: is given twice"):
        parse_all(["fgsm:0.5", "test", "fgsm:0.50@test"], 32, 3)


def test_a_view_is_its_attack() -> None:
    assert attack_of("clean") is None
    assert attack_of("fgsm:0.03") == Attack(0.03)
    assert attack_of(parse("pgd:0.1:5", 32, 3)[0].views[0]) == Attack(0.1, 5, 0.05)


def test_corruptions_are_those_of_the_images_size_and_channels() -> None:
    (suite,) = parse("corruptions@x", 28, 1)
    assert (suite.kind, suite.source, len(suite.views)) == ("corruptions", "x", 5 * 17)
    assert corruption_of(suite.views[7]) == ("cifar-1", "shot_noise", 3)
    assert corruption_of("clean") is None


def test_robustness_is_all_of_them_on_the_same_images() -> None:
    found = parse("robustness@x", 32, 3)
    assert [it.kind for it in found] == ["clean", "corruptions", "perturbations", "fgsm", "pgd"]
    assert {it.source for it in found} == {"x"}


def test_the_classes_to_choose_among_travel_in_the_view() -> None:
    (suite,) = parse("among@x", 224, 3)
    classes = np.arange(1000) % 5 == 0
    (view,) = among(suite, classes).views
    found = among_of(view, 1000)
    assert found is not None
    assert (found == classes).all()
    assert among_of("clean", 1000) is None


def test_one_class_to_choose_among_is_no_choice() -> None:
    (suite,) = parse("among@x", 224, 3)
    with pytest.raises(InputError, match="--on among@x: its images are all of one class"):
        among(suite, np.arange(1000) == 5)


def test_reassessed_labels_are_a_file() -> None:
    assert parse("real:a/real.json@val", 224, 3) == [
        Suite("real:a/real.json@val", "real", "val", ("clean",), "a/real.json")
    ]
