from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from ray_ns.config import Config
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.workers.slices import Reader, Slice
from ray_ns.train.sources import Sources


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_without_a_random_crop_a_training_sees_images_as_a_teacher_does(
    config: Config, write_corpus: Callable[..., Corpus], encode: Callable[..., bytes], fit: str
) -> None:
    ramp = np.add.outer(np.arange(40), 3 * np.arange(60)).astype(np.uint8)
    corpus = write_corpus("labelled", [[encode(Image.fromarray(ramp))]], [[1]])
    config = config.model_copy(update={"data": config.data.model_copy(update={"fit": fit})})
    pixels, _ = Sources(config.teacher, config.data, {"labelled": corpus}).labelled().image(0, 0)
    seen, _ = Reader(config).read({"labelled": corpus}, Slice("labelled", 0, 0, 0, 0, 1))
    np.testing.assert_array_equal(pixels, seen[0])
    assert (int(pixels[0, 0, 0]) > 30) == (fit == "crop"), "the corner is cut off"
    recipe = config.teacher.model_copy(update={"train_size": 12, "interpolation": "bicubic"})
    pixels, _ = Sources(recipe, recipe.trained_on(config.data), {"labelled": corpus}).labelled().image(0, 0)
    assert pixels.shape == (12, 12, 1)
