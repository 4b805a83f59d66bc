"""Whether what a network says of images are numbers: of one that says NaN no label and no figure means anything."""

import numpy as np

from ray_ns.errors import InputError

NO_USE = "is of no use: train it anew, with a lower learning rate where it has diverged."


def refuse(said: np.ndarray, network: str, of: str) -> None:
    """Raise ``InputError``, which names ``network``, where something that it said is NaN or infinite.

    ``said``: confidences or logits of images that can be read, float (n,) or (n, classes). ``of``: which images.
    """
    void = ~np.isfinite(said)
    images = int((void.any(1) if said.ndim > 1 else void).sum())
    if images:
        raise InputError(
            f"{network}: says NaN or infinite numbers of {images:,} of {len(said):,} images ({of}); expected "
            f"probabilities of 0..1. The network {NO_USE}"
        )
