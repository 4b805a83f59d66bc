"""What corruptions come to: means by severity, by corruption and by image."""

import numpy as np
import pytest

from ray_ns.evaluate.corruptions import COMMON
from ray_ns.evaluate.figures import Judged
from ray_ns.evaluate.kinds import KINDS
from ray_ns.evaluate.suites import CORRUPTIONS, parse


def judged(wrong: int, images: int = 5) -> Judged:
    """The first ``wrong`` of the images are."""
    label = (np.arange(images) < wrong).astype(int)
    return Judged(np.zeros(images, int), label, np.ones(images), np.zeros(images), label[:, None])


def test_corruptions_are_averaged_by_severity_then_by_name_and_the_interval_is_of_images() -> None:
    (suite,) = parse("corruptions", 32, 3)
    views = {view: judged(5 if view.endswith(("fog:5", "saturate:1")) else 1) for view in suite.views}
    found = KINDS[CORRUPTIONS].figures(views, 10)
    assert found["corruptions"]["fog"] == [0.2, 0.2, 0.2, 0.2, 1.0]
    assert found["error"] == pytest.approx((14 * 0.2 + 0.36) / 15, abs=1e-6)
    assert found["error_all"] == pytest.approx((16 * 0.2 + 2 * 0.36) / 18, abs=1e-6)
    assert (found["variant"], found["left_out"], found["mce"]) == ("cifar-1", ["spatter"], None)
    values = KINDS[CORRUPTIONS].values(views)
    assert values.tolist() == pytest.approx([1, 1 / 75, 1 / 75, 1 / 75, 1 / 75])
    half = 2.7764 * values.std(ddof=1) / 5**0.5
    assert found["error_interval"] == pytest.approx([0, values.mean() + half], abs=3e-3)


def test_the_error_is_normalised_for_the_classes_of_imagenet_alone() -> None:
    views = {f"corrupt:imagenet-1:{name}:{it}": judged(2) for name in COMMON for it in (1, 2, 3, 4, 5)}
    assert KINDS[CORRUPTIONS].figures(views, 1000)["mce"] == pytest.approx(0.4 * np.mean(1 / ALEX), abs=1e-6)
    assert KINDS[CORRUPTIONS].figures(views, 200)["mce"] is None


ALEX = np.array(
    [
        *(0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572, 0.819324),
        *(0.564592, 0.853204, 0.646056, 0.717840, 0.606500),
    ]
)
