"""What the order of images costs a step in mid-epoch, at the size of a real selection.

    python -m benchmarks.sampler

A batch of 2,048 images of selections of 1, 20 and 130 million, 25 of each row group, at the start, in the middle and at
the end of the third epoch: milliseconds of CPU per batch beside those of the first batch of all (the ratio should be
about 1 everywhere), and the seconds that a new epoch costs once.
"""

import time

import numpy as np

from ray_ns.train.sampler import Order

BATCH, PER_VISIT, TURNS = 2048, 25, 5


def main() -> None:
    """Print a line per size and place."""
    for images in (1_000_000, 20_000_000, 130_000_000):
        order = Order(np.full(images // PER_VISIT, PER_VISIT), BATCH, 0)
        epoch = images // BATCH
        first = None
        for place, step in {"start": 0, "middle": 2.5, "end": 2.99}.items():
            at = int(step * epoch)
            began = time.process_time()
            order.slots(at)
            new_epoch = time.process_time() - began
            taken = []
            for turn in range(1, TURNS + 1):
                began = time.process_time()
                order.slots(at + turn)
                taken.append(time.process_time() - began)
            cost = 1000 * float(np.median(taken))
            first = first or cost
            told = f"{cost:6.1f} ms a batch, {cost / first:.2f} of the first; {new_epoch:.2f} s once"
            print(f"{images:>11,} images, {place:>6} of an epoch: {told}", flush=True)


if __name__ == "__main__":
    main()
