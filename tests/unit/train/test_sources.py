from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ray_ns.config import Config, Student
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.workers.slices import Reader, Slice
from ray_ns.methods.objectives import NoisyStudent
from ray_ns.train.objective import Source
from ray_ns.train.selected import Selected
from ray_ns.train.sources import Sources


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_without_a_random_crop_a_training_sees_images_as_a_teacher_does(
    config: Config, write_corpus: Callable[..., Corpus], encode: Callable[..., bytes], fit: str
) -> None:
    ramp = np.add.outer(np.arange(40), 3 * np.arange(60)).astype(np.uint8)
    corpus = write_corpus("labelled", [[encode(Image.fromarray(ramp))]], [[1]])
    config = config.model_copy(update={"data": config.data.model_copy(update={"fit": fit})})
    (pixels,), _ = Sources(config.teacher, config.data, {"labelled": corpus}).labelled().image(0, 0)
    seen, _ = Reader(config).read({"labelled": corpus}, Slice("labelled", 0, 0, 0, 0, 1))
    np.testing.assert_array_equal(pixels, seen[0])
    assert (int(pixels[0, 0, 0]) > 30) == (fit == "crop"), "the corner is cut off"
    recipe = config.teacher.model_copy(update={"train_size": 12, "interpolation": "bicubic"})
    (pixels,), _ = Sources(recipe, recipe.trained_on(config.data), {"labelled": corpus}).labelled().image(0, 0)
    assert pixels.shape == (12, 12, 1)


@pytest.mark.parametrize("noise", [{"augment": "randaugment"}, {"crop": "padded"}, {"crop": "random_resized"}])
def test_pseudo_labelled_images_without_input_noise_are_those_that_the_teacher_sees(
    config: Config, write_corpus: Callable[..., Corpus], pictures: Callable[..., list[bytes]], noise: dict[str, str]
) -> None:
    corpora = {
        "labelled": write_corpus("labelled", [pictures(3)], [[0, 1, 2]]),
        "pool": write_corpus("pool", [pictures(9)]),
    }
    names = pa.table({"image_id": np.arange(9), "label": np.arange(9) % 3, "copies": np.ones(9, np.int64)})
    batches = []
    for given in (True, False):
        changes = {"noise": {"augment": "none"} | noise, "pseudo_noise": {"input": given}, "targets": "hard"}
        recipe = Student.model_validate({**config.student.model_dump(), **changes, "batch": 3, "ratio": 3})
        steps = Sources(recipe, config.data, corpora, Selected([names])).steps(NoisyStudent(recipe).sources(), 1, 0, 1)
        batches.append(steps[0])
    noised, spared = (it.images.numpy() for it in batches)
    np.testing.assert_array_equal(noised[:3], spared[:3])
    seen, _ = Reader(config).read(corpora, Slice("pool", 0, 0, 0, 0, 4))
    plain = {image.tobytes() for image in spared[3:]}
    assert {image.tobytes() for image in seen} <= plain
    assert len(plain - {image.tobytes() for image in noised[3:]}) > 2, "RandAugment leaves some as they are"


def test_of_two_views_the_plain_one_is_the_whole_image_and_the_noised_one_a_random_crop(
    config: Config, write_corpus: Callable[..., Corpus], encode: Callable[..., bytes]
) -> None:
    ramp = np.add.outer(np.arange(40), 3 * np.arange(60)).astype(np.uint8)
    corpora = {"pool": write_corpus("pool", [[encode(Image.fromarray(ramp))]])}
    names = pa.table({"image_id": np.arange(1), "label": np.arange(1), "copies": np.ones(1, np.int64)})
    noise = {"augment": "none", "crop": "random_resized"}
    recipe = Student.model_validate({**config.student.model_dump(), "noise": noise, "targets": "hard"})
    sources = Sources(recipe, config.data, corpora, Selected([names]))
    plain, noised = sources.steps([Source("selection", 8, (False, True))], 1, 0, 1)[0].images.split(8)
    seen, _ = Reader(config).read(corpora, Slice("pool", 0, 0, 0, 0, 1))
    assert all(np.array_equal(image, seen[0]) for image in plain.numpy())
    assert len({image.tobytes() for image in noised.numpy()}) == 8
