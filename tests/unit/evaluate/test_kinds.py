"""What corruptions come to: means by severity, by corruption and by image."""

from dataclasses import replace

import numpy as np
import pytest
from timm.data import ImageNetInfo

from ray_ns.evaluate.corruptions import ALEXNET, COMMON
from ray_ns.evaluate.figures import Judged
from ray_ns.evaluate.kinds import KINDS
from ray_ns.evaluate.perturbations import TABLE
from ray_ns.evaluate.suites import CORRUPTIONS, PERTURBATIONS, REAL, parse


def judged(wrong: int, images: int = 5) -> Judged:
    """The first ``wrong`` of the images are."""
    label = (np.arange(images) < wrong).astype(int)
    return Judged(np.zeros(images, int), label, np.ones(images), np.zeros(images), label[:, None])


def test_corruptions_are_averaged_by_severity_then_by_name_and_the_interval_is_of_images() -> None:
    (suite,) = parse("corruptions", 32, 3)
    views = {view: judged(5 if view.endswith(("fog:5", "saturate:1")) else 1) for view in suite.views}
    found = KINDS[CORRUPTIONS].figures(views, 10, None)
    assert found["corruptions"]["fog"] == [0.2, 0.2, 0.2, 0.2, 1.0]
    assert found["error"] == pytest.approx((14 * 0.2 + 0.36) / 15, abs=1e-6)
    assert found["error_all"] == pytest.approx((16 * 0.2 + 2 * 0.36) / 18, abs=1e-6)
    assert (found["variant"], found["left_out"], found["mce"]) == ("cifar-1", ["spatter"], None)
    values = KINDS[CORRUPTIONS].values(views)
    assert values.tolist() == pytest.approx([1, 1 / 75, 1 / 75, 1 / 75, 1 / 75])
    half = 2.7764 * values.std(ddof=1) / 5**0.5
    assert found["error_interval"] == pytest.approx([0, values.mean() + half], abs=3e-3)


OWN = tuple(ImageNetInfo().label_names())
PRODUCTS = tuple(f"product {number}" for number in range(1000))


@pytest.mark.parametrize(
    ("names", "normalised"),
    [
        (OWN, True),
        (OWN[::-1], True),  # a network that has them in another order
        (PRODUCTS, False),
        (None, False),  # a thousand classes, of which nothing is known
        ((*OWN[:-1], "n99999999"), False),
        (OWN[:200], False),
        ((*OWN[:-1], OWN[0]), False),
    ],
)
def test_errors_are_normalised_for_the_classes_of_imagenet_alone(
    names: tuple[str, ...] | None, normalised: bool
) -> None:
    classes = len(names or OWN)
    corrupted = {f"corrupt:imagenet-1:{name}:{it}": judged(2) for name in COMMON for it in (1, 2, 3, 4, 5)}
    perturbed = {f"perturb:imagenet-1:{name}": sequences() for name in TABLE}
    mce, mfr = (
        KINDS[CORRUPTIONS].figures(corrupted, classes, names),
        KINDS[PERTURBATIONS].figures(perturbed, classes, names),
    )
    assert (mce["mce"] is not None, mfr["mfr"] is not None) == (normalised, normalised)
    small = {view.replace("imagenet-1", "cifar-1"): it for view, it in corrupted.items()}
    assert KINDS[CORRUPTIONS].figures(small, classes, names)["mce"] is None


# ResNet-50's top-1 on ImageNet-C in %, mean of the severities, and its errors over AlexNet's, as published with Rusak
# et al. 2020 (bethgelab/game-of-noise, Results/clean_results.txt); the mean of the latter is the benchmark's 76.7.
RESNET_50 = {
    "gaussian_noise": (29.29, 79.77),
    "shot_noise": (27.03, 81.58),
    "impulse_noise": (23.81, 82.58),
    "defocus_blur": (38.75, 74.71),
    "glass_blur": (26.79, 88.61),
    "motion_blur": (38.67, 78.03),
    "zoom_blur": (36.24, 79.86),
    "snow": (32.53, 77.83),
    "frost": (38.14, 74.84),
    "fog": (45.83, 66.11),
    "brightness": (68.02, 56.64),
    "contrast": (39.06, 71.43),
    "elastic_transform": (45.25, 84.75),
    "pixelate": (44.79, 76.92),
    "jpeg_compression": (53.41, 76.82),
}


def test_resnet_50_has_its_published_errors() -> None:
    views = {
        f"corrupt:imagenet-1:{name}:{it}": judged(round(100 * (100 - right)), 10_000)
        for name, (right, _) in RESNET_50.items()
        for it in (1, 2, 3, 4, 5)
    }
    found = KINDS[CORRUPTIONS].figures(views, 1000, OWN)
    assert 100 * found["mce"] == pytest.approx(76.70, abs=0.005)
    for name, (right, over) in RESNET_50.items():
        assert found["corruptions"][name] == [pytest.approx(1 - right / 100)] * 5
        assert 100 * (1 - right / 100) / ALEXNET[name] == pytest.approx(over, abs=0.01), name


def sequences(frames: int = 5) -> Judged:
    """Two images of which nothing moves."""
    top = np.tile(np.arange(5), (2, frames, 1))
    return Judged(np.zeros(2, int), np.zeros(2, int), np.ones(2), np.zeros(2), top[:, 0], top)


def test_where_no_image_can_be_read_no_flip_is_measured() -> None:
    unread = replace(sequences(), label=np.full(2, -1))
    found = KINDS[PERTURBATIONS].figures({f"perturb:imagenet-1:{name}": unread for name in TABLE}, 1000, OWN)
    unknown = ("flips", "flips_interval", "top5_distance", "mfr")
    assert [found[name] for name in unknown] == [None] * 4
    assert found["perturbations"]["tilt"] == {"flips": None, "top5_distance": None}


def test_where_no_image_has_a_real_label_nothing_is_measured() -> None:
    none = replace(judged(2), accepted=np.full(5, -1))
    found = KINDS[REAL].figures({"clean": none}, 10, None)
    assert (found["images"], found["left_out"], found["top1"], found["top1_interval"]) == (0, 5, None, None)
