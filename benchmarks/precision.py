"""What bfloat16 is worth on this machine's CPU, by kind of convolution and by network.

    OMP_NUM_THREADS=1 python -m benchmarks.precision --seconds 20

One thread, memory kept and channels last, as a worker trains. ``float32`` is no autocast, ``bfloat16`` is autocast of
all, ``ours`` is ``ray_ns.train.precision``: autocast but for convolutions in thin groups, as depthwise ones. They take
turns of a pass; the table has the median milliseconds per image. ``train`` is forward and back (of 32 images; networks
at 160 pixels), ``label`` is forward alone (of 16 images; networks at 224). The last line is the table as JSON.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from ray_ns.models.memory import keep_memory
from ray_ns.train.precision import autocast

CPU = torch.device("cpu")
WAYS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float32": lambda: autocast("float32", CPU),
    "bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "ours": lambda: autocast("bfloat16", CPU),
}
# Channels in and out, kernel, stride, groups, pixels: layers of resnet18, efficientnet_b0, resnext50.
CONVOLUTIONS = {
    "plain 3x3, 64 at 56": (64, 64, 3, 1, 1, 56),
    "plain 1x1, 192 to 1152 at 14": (192, 1152, 1, 1, 1, 14),
    "plain 1x1, 96 to 24 at 56": (96, 24, 1, 1, 1, 56),
    "groups of 16 3x3, 512 at 14": (512, 512, 3, 1, 32, 14),
    "groups of 8 3x3, 256 at 28": (256, 256, 3, 1, 32, 28),
    "groups of 4 3x3, 128 at 56": (128, 128, 3, 1, 32, 56),
    "depthwise 3x3, 96 at 112, stride 2": (96, 96, 3, 2, 96, 112),
    "depthwise 3x3, 144 at 56": (144, 144, 3, 1, 144, 56),
    "depthwise 5x5, 240 at 28": (240, 240, 5, 1, 240, 28),
    "depthwise 5x5, 672 at 14": (672, 672, 5, 1, 672, 14),
}
NETWORKS = ("resnet18", "efficientnet_b0", "mobilenetv3_large_100", "resnext50_32x4d")


def train(network: nn.Module, pixels: Tensor, way: str) -> None:
    """Forward and back."""
    with WAYS[way]():
        out = network(pixels)
    out.float().sum().backward()


@torch.inference_mode()
def label(network: nn.Module, pixels: Tensor, way: str) -> None:
    """Forward alone."""
    with WAYS[way]():
        network(pixels)


WORK = {"train": train, "label": label}


def measure(case: str, work: str, network: nn.Module, pixels: Tensor, seconds: float) -> dict[str, Any]:
    """A row of the table: after one pass each to get warm, passes in turns for ``seconds``, at least three."""
    network = network.to(memory_format=torch.channels_last).train(work == "train")
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    end = float("inf")
    while min(map(len, took.values())) < 4 or time.monotonic() < end:
        for way, times in took.items():
            begin = time.perf_counter()
            WORK[work](network, pixels, way)
            times.append(time.perf_counter() - begin)
        end = min(end, time.monotonic() + seconds)
    medians = {way: 1000 * statistics.median(times[1:]) / len(pixels) for way, times in took.items()}
    return {
        "case": case,
        "work": work,
        "passes": len(took["float32"]) - 1,
        **{f"{way}_ms": round(value, 2) for way, value in medians.items()},
        "ours_of_bfloat16": round(medians["ours"] / medians["bfloat16"], 2),
    }


def main() -> None:
    """Measure what the command line asks for."""
    import timm

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each row")
    parser.add_argument("--cases", nargs="+", choices=(*CONVOLUTIONS, *NETWORKS), default=(*CONVOLUTIONS, *NETWORKS))
    words = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    rows: list[dict[str, Any]] = []
    for case in words.cases:
        if case in CONVOLUTIONS:
            inside, out, kernel, stride, groups, size = CONVOLUTIONS[case]
            layer = nn.Conv2d(inside, out, kernel, stride, kernel // 2, groups=groups, bias=False)
            pixels = torch.randn(32, inside, size, size, requires_grad=True)  # as the layer before needs its gradient
            rows.append(measure(case, "train", layer, pixels, words.seconds))
        else:
            network = timm.create_model(case)
            rows.append(measure(case, "train", network, torch.randn(32, 3, 160, 160), words.seconds))
            rows.append(measure(case, "label", network, torch.randn(16, 3, 224, 224), words.seconds))
    print("| " + " | ".join(rows[0]) + " |")
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
