"""ImageNet-C's corruptions, made of any labelled images: 15 kinds, and up to four more, at severity 1 to 5.

They are made of an image's pixels as the network sees them, after it is cropped and resized; nothing is cropped or
resized afterwards. An image's draws are keyed by its id, the corruption and the severity. The constants go by the
side of the image (``variant``): those of CIFAR-10-C below ``LARGE`` pixels, those of ImageNet-C from there on.
"""

import threading
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from ray_ns import keyed
from ray_ns.errors import InputError
from ray_ns.evaluate.corruptions import small

COMMON = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
SEVERITIES = (1, 2, 3, 4, 5)
LARGE = 64
CIFAR = "cifar-1"  # the constants, and the version of the code that makes them
PUBLISHED = "published"  # instead of a variant: images that others have corrupted
_SEED = 0x6E73_0018
_DRAWING = threading.Lock()  # NumPy's global generator is one for all threads, and an actor with a GPU has two

# Errors of AlexNet, mean of the severities (hendrycks/robustness, issue 10; google-research/augmix, imagenet.py).
ALEXNET = dict(
    zip(
        COMMON,
        (
            *(0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572, 0.819324),
            *(0.564592, 0.853204, 0.646056, 0.717840, 0.606500),
        ),
        strict=True,
    )
)


def mce(errors: Mapping[str, float]) -> float:
    """The mean corruption error, 1.0 is AlexNet's: of mean errors 0..1 of each of ``COMMON``."""
    return float(np.mean([errors[name] / ALEXNET[name] for name in COMMON]))


def variant(size: int) -> str:
    """Which constants images of ``size`` pixels get, and whose code makes them, as a word.

    Raises ``InputError`` where that is a package that is missing.
    """
    if size < LARGE:
        return CIFAR
    try:
        from importlib.metadata import version

        import imagecorruptions  # noqa: F401

        return f"imagenet-{version('imagecorruptions-imaug')}"
    except ImportError as error:
        raise InputError(
            f"--on corruptions: of images of {size} pixels they need imagecorruptions-imaug ({error}). "
            f"Install it: pip install 'ray-ns[robustness]'"
        ) from error


def names(size: int, channels: int) -> list[str]:
    """The corruptions that there are of such images: without spatter below ``LARGE``, without saturate of grey ones."""
    missing = ({"spatter"} if size < LARGE else set()) | ({"saturate"} if channels == 1 else set())
    return [name for name in (*COMMON, *EXTRA) if name not in missing]


def corrupted(images: np.ndarray, ids: Sequence[int], of: str, name: str, severity: int) -> np.ndarray:
    """Images, uint8 (n, side, side, channels), corrupted. ``ids``: of the images. ``of``: the ``variant``.

    Those of ``PUBLISHED`` are so already.
    """
    if of == PUBLISHED:
        return images
    seeds = (keyed.seed(_SEED, zlib.crc32(name.encode()), severity, int(it)) for it in ids)
    one = _small if of == CIFAR else _large
    made = [one(image, name, severity, seed) for image, seed in zip(images, seeds, strict=True)]
    return np.stack(made) if made else images


def _small(image: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    return small.corrupted(image, name, severity, np.random.default_rng(seed))


def _large(image: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    """By imagecorruptions, which draws from NumPy's global generator, of some corruptions by a seed that it takes."""
    import imagecorruptions

    takes = {"seed": seed % 2**32} if name in {"impulse_noise", "glass_blur"} else {}
    with _DRAWING:
        before = np.random.get_state()
        np.random.seed(seed % 2**32)
        try:
            made = imagecorruptions.corrupt(image, severity, name, **takes)
        finally:
            np.random.set_state(before)
    return made if image.shape[2] == 3 else made.mean(2, keepdims=True).round().astype(np.uint8)
