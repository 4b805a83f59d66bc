"""ImageNet-C as it is published: what lies there, what is missing, and what the figures then are."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from timm.data import ImageNetInfo

from ray_ns.errors import InputError
from ray_ns.evaluate import published
from ray_ns.evaluate.corruptions import ALEXNET, COMMON, EXTRA, corrupted
from ray_ns.evaluate.figures import Judged
from ray_ns.evaluate.kinds import KINDS
from ray_ns.evaluate.suites import PUBLISHED, Suite, corruption_of, parse

OWN = tuple(ImageNetInfo().label_names())
ALL = [f"corrupt:published:{name}:{it}" for name in (*COMMON, *EXTRA) for it in range(1, 6)]


def suite(root: Path, paths: Iterable[str]) -> Suite:
    for path in paths:
        (root / path).mkdir(parents=True)
    (found,) = parse(f"imagenet-c@{root}", 224, 3)
    return published.found(found)


def test_the_folders_are_found_with_and_without_those_of_the_tars(tmp_path: Path) -> None:
    paths = ["noise/shot_noise/2/n01", "noise/shot_noise/10", "fog/5/n01", "fog/1", "extra/saturate/3", "notes/fog/3"]
    found = suite(tmp_path, paths)
    assert found.kind == PUBLISHED
    assert list(zip(found.views, (it.removeprefix(f"{tmp_path}/") for it in found.folders), strict=True)) == [
        ("corrupt:published:shot_noise:2", "noise/shot_noise/2"),
        ("corrupt:published:fog:1", "fog/1"),
        ("corrupt:published:fog:5", "fog/5"),
        ("corrupt:published:saturate:3", "extra/saturate/3"),
    ]


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["fog/1", "weather/fog/2"], "fog lies in fog and in weather/fog"),
        (["saturate/1", "cat", "dog"], "which holds the folders cat, dog, saturate"),
        (["fog", "noise"], r"no folder such as gaussian_noise/1 or noise/gaussian_noise/1"),
        ([], "holds no folder"),
    ],
)
def test_another_layout_is_refused_with_what_was_found(tmp_path: Path, paths: list[str], said: str) -> None:
    with pytest.raises(InputError, match=f"--on imagenet-c@.*{said}"):
        suite(tmp_path, paths)


def test_a_place_that_is_not_there_or_not_named_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.*cannot be listed"):
        published.found(parse(f"imagenet-c@{tmp_path}/none", 224, 3)[0])
    for word in ("imagenet-c", "imagenet-c@", "imagenet-c:5@x"):
        with pytest.raises(InputError, match="Expected imagenet-c@FOLDER"):
            parse(word, 224, 3)


def test_the_settings_of_a_url_stay_behind_it() -> None:
    assert published._below("s3://bucket/c/?region=x", "fog/1") == "s3://bucket/c/fog/1?region=x"
    assert published._below("what?/c", "fog/1") == "what?/c/fog/1"


def test_published_images_are_not_corrupted_again() -> None:
    images = np.arange(3 * 16 * 16 * 3, dtype=np.uint8).reshape(3, 16, 16, 3)
    found = corruption_of(ALL[0])
    assert found is not None
    assert corrupted(images, range(3), *found) is images


def judged(wrong: int, unreadable: int = 9) -> Judged:
    """Of five images the first ``wrong`` are; ``unreadable``: the number of one that cannot be read."""
    label = (np.arange(5) < wrong).astype(int)
    label[np.arange(5) == unreadable] = -1
    return Judged(np.zeros(5, int), label, np.ones(5), np.zeros(5), label[:, None])


def test_all_of_it_is_normalised_by_alexnet_and_names_the_crop() -> None:
    views = {view: judged(5 if ":saturate:" in view else 1) for view in ALL}
    found = KINDS[PUBLISHED].figures(views, 1000, OWN)
    assert (found["variant"], found["crop"], found["left_out"], found["images"]) == ("published", "whole", [], 5)
    assert found["mce"] == pytest.approx(0.2 * np.mean([1 / it for it in ALEXNET.values()]), abs=1e-6)
    assert (found["error"], found["error_all"]) == (0.2, pytest.approx((18 * 0.2 + 1) / 19, abs=1e-6))
    assert KINDS[PUBLISHED].figures(views, 1000, [*"abc"])["mce"] is None
    without_extra = KINDS[PUBLISHED].figures({view: it for view, it in views.items() if view in ALL[:75]}, 1000, OWN)
    assert (without_extra["mce"], without_extra["left_out"]) == (found["mce"], list(EXTRA))


@pytest.mark.parametrize(
    ("gone", "missing"),
    [
        ([":fog:"], ["fog"]),
        ([":fog:3", ":fog:4"], ["fog:3", "fog:4"]),
        ([":saturate:1", ":snow:5"], ["snow:5", "saturate:1"]),
    ],
)
def test_what_is_missing_is_named_and_the_mean_of_the_rest_is_no_mce(gone: list[str], missing: list[str]) -> None:
    views = {view: judged(1) for view in ALL if not any(it in view for it in gone)}
    found = KINDS[PUBLISHED].figures(views, 1000, OWN)
    assert (found["mce"], found["left_out"], found["error"]) == (None, missing, 0.2)


def test_an_image_that_cannot_be_read_in_some_view_is_counted_once() -> None:
    views = {view: judged(0, 3 if at % 2 else 4) for at, view in enumerate(ALL)}
    found = KINDS[PUBLISHED].figures(views, 1000, OWN)
    assert (found["unreadable"], found["images"], found["error"]) == (2, 5, 0.2)
