"""A teacher that is noised while it labels: each image by its own key, whatever it is labelled beside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from ray_ns.config import Config, Data, Model, Noise
from ray_ns.config.read import load
from ray_ns.errors import InputError
from ray_ns.models.files import from_files, to_files
from ray_ns.models.noised import Noising
from ray_ns.models.predictor import Teacher
from ray_ns.models.zoo import build

AFFINE = Noise(augment="affine", magnitude=0.7, flip=False)
NONE = Noise(augment="none")
SIZE, MANY = 16, 40
RATES = {"drop_rate": 0.3, "drop_path_rate": 0.4}


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (MANY, SIZE, SIZE, 1), dtype=np.uint8)


@pytest.fixture
def teacher(config: Config) -> Callable[..., Teacher]:
    """A network as the run's files give it, with rates, in batches of so many."""
    torch.manual_seed(0)
    model = Model.model_validate({**config.teacher.model.model_dump(), "dropout": 0.0, "drop_path": 0.0})
    network = build(model, config.data)
    for name, weight in network.named_parameters():
        if name.endswith("bn2.weight"):
            nn.init.ones_(weight)
    files = to_files(network, config.data)

    def made(batch: int = 16, **rates: float) -> Teacher:
        return Teacher(from_files(files, **rates), config.data, batch, "float32", torch.device("cpu"))

    return made


IDS = 10**12 + 7 * np.arange(MANY)


@pytest.mark.parametrize(
    "noise", [AFFINE, NONE, Noise(augment="randaugment", flip=False), Noise(crop="random_resized")]
)
def test_an_image_gets_its_own_noise_in_any_batch_and_order(
    teacher: Callable[..., Teacher], images: np.ndarray, noise: Noise
) -> None:
    noising = Noising(noise, SIZE, 5)
    labeller = teacher(**RATES)
    whole = labeller.noised(images, IDS, noising)
    order = np.random.default_rng(1).permutation(MANY)[:23]
    some = labeller.noised(images[order], IDS[order], noising)
    np.testing.assert_allclose(some, whole[order], atol=1e-6)
    other = teacher(batch=5, **RATES).noised(images, IDS, noising)
    np.testing.assert_allclose(other, whole, atol=1e-5)
    assert np.abs(labeller.noised(images, IDS + 1, noising) - whole).max() > 0.01, "another image, other draws"
    assert np.abs(labeller.noised(images, IDS, Noising(noise, SIZE, 6)) - whole).max() > 0.01, "another run"


def test_a_labelling_that_is_resumed_gives_the_same_bits(teacher: Callable[..., Teacher], images: np.ndarray) -> None:
    found = [teacher(**RATES).noised(images, IDS, Noising(AFFINE, SIZE, 5)) for _ in range(2)]
    assert np.array_equal(*found)


def test_nothing_of_the_noise_stays(teacher: Callable[..., Teacher], images: np.ndarray) -> None:
    labeller = teacher(**RATES)
    before = labeller(images)
    kept = images.copy()
    noised = labeller.noised(images, IDS, Noising(AFFINE, SIZE, 5))
    assert np.array_equal(labeller(images), before)
    assert np.array_equal(images, kept)
    assert np.abs(noised - before).max() > 0.05
    assert np.array_equal(teacher().noised(images, IDS, Noising(NONE, SIZE, 5)), teacher()(images)), (
        "no rates, no noise"
    )
    assert len(labeller.noised(images[:0], IDS[:0], Noising(AFFINE, SIZE, 5))) == 0


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate: float) -> None:
    network = nn.Dropout(rate).eval()
    ids = np.arange(2000)
    with Noising(NONE, SIZE, 3).on(network, ids):
        found = network(torch.ones(2000, 50))
        again = network(torch.ones(2000, 50))
    assert {round(it, 4) for it in found.unique().tolist()} == {0.0, round(1 / (1 - rate), 4)}
    assert float((found == 0).float().mean()) == pytest.approx(rate, abs=0.01)
    assert float(((found == 0) & (again == 0)).float().mean()) == pytest.approx(rate**2, abs=0.01), "layers apart"
    assert float((found[1:] == found[:-1]).float().mean()) == pytest.approx(rate**2 + (1 - rate) ** 2, abs=0.01)
    assert torch.equal(network(torch.ones(3, 2)), torch.ones(3, 2))


def test_drop_path_drops_whole_branches_of_an_image_at_its_rate() -> None:
    module = timm.layers.DropPath(0.25).eval()
    with Noising(NONE, SIZE, 3).on(module, np.arange(4000)):
        found = module(torch.ones(4000, 3, 2))
    assert (found == found[:, :1, :1]).all()
    assert float((found[:, 0, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(found.mean()) == pytest.approx(1, abs=0.03)


def test_dropout_of_channels_drops_whole_channels() -> None:
    module = nn.Dropout2d(0.5).eval()
    with Noising(NONE, SIZE, 3).on(module, np.arange(100)):
        found = module(torch.ones(100, 8, 3, 3))
    assert (found == found[:, :, :1, :1]).all()
    assert 0.4 < float((found == 0).float().mean()) < 0.6


def test_what_cannot_be_noised_by_image_is_refused() -> None:
    noising = Noising(NONE, SIZE, 3)
    for module, words in (
        (nn.Sequential(nn.Flatten(0, 1), nn.Dropout(0.5)), "drops among 12 rows where 4 images"),
        (nn.AlphaDropout(0.5), "alpha_dropout is not made for each image apart"),
    ):
        with noising.on(module.eval(), np.arange(4)), pytest.raises(InputError, match=words):
            module(torch.ones(4, 3, 2))


def test_a_noised_teacher_is_not_compiled_and_a_prediction_is_not_noised(tmp_path: Path) -> None:
    from ray_ns.config.prediction import asked

    data: dict[str, Any] = Data.model_validate({"labelled": "l", "pool": "p", "classes": 2}).model_dump()
    with pytest.raises(InputError, match=r"label\.noised: a prediction has no student"):
        asked({"data": data}, ["label.noised=true"])
    with pytest.raises(InputError, match="set one to false"):
        load("configs/demo.yaml", ["label.noised=true", "label.compile=true"])
