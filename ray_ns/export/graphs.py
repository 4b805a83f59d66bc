"""A network as a graph that runs without timm: ONNX and torch.export, each compared with torch before it is given.

The input is a batch of any size of float32 images (batch, channels, size, size), normalised as ``config.json`` says;
the output are logits (batch, classes). ``config.json`` goes into the file, so it says by itself how it is fed.
"""

import io
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ray_ns import __version__
from ray_ns.errors import InputError
from ray_ns.export.network import Given
from ray_ns.export.samples import sample
from ray_ns.models.files import CONFIG, WEIGHTS
from ray_ns.models.given import network_of
from ray_ns.seals import sha256

if TYPE_CHECKING:
    import torch

Kind = Literal["onnx", "torch"]
FILES: dict[Kind, str] = {"onnx": "model.onnx", "torch": "model.pt2"}
OPSET = 18
ALLOWED = 1e-4  # of a probability
BATCH = 8  # images compared at once; a single one is compared too, because the batch is of any size
Predict = Callable[[np.ndarray], np.ndarray]  # images to logits


@dataclass(frozen=True)
class Graph:
    """A graph that gives torch's probabilities. ``difference``: the greatest one of a probability, on ``images``."""

    kind: Kind
    file: bytes
    difference: float
    images: str

    def in_words(self) -> str:
        """What it takes and gives, and how near it is."""
        form = f"opset {OPSET}" if self.kind == "onnx" else "torch.export"
        return (
            f"{form}; input 'images' float32 (batch, channels, size, size), normalised as config.json says; output "
            f"'logits'; greatest difference of a probability from torch {self.difference:.1e} on {self.images}"
        )


def check(kinds: list[Kind]) -> None:
    """Raise ``InputError`` where a package is missing that these kinds need."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if "onnx" in kinds and find_spec(name) is None]
    if missing:
        raise InputError(f"--onnx: {', '.join(missing)} not installed. Run: pip install 'ray-ns[export]'")


def graphs(given: Given, kinds: list[Kind]) -> Iterator[Graph]:
    """The graph of each kind. ``InputError`` where it cannot be made, or differs by more than ``ALLOWED``."""
    import torch

    network = network_of(given.files, given.place)
    seen = sample(given)
    shape = (given.data.channels, given.data.size, given.data.size)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporters, on operators of their own
        try:
            example = (torch.zeros(2, *shape),)
            program = torch.export.export(network, example, dynamic_shapes=({0: torch.export.Dim("batch")},))
        except Exception as error:  # the exporter raises anything at all
            raise _refused(given, "torch.export", error) from error
        for kind in kinds:
            try:
                file, predict = _onnx(program, given) if kind == "onnx" else _pt2(program, given)
            except Exception as error:
                raise _refused(given, "ONNX" if kind == "onnx" else "torch.export", error) from error
            found = difference(network, predict, seen.images)
            if found > ALLOWED:
                raise InputError(
                    f"{given.place}: its {FILES[kind]} would give other probabilities than torch: by {found:.1e} on "
                    f"{seen.told}, allowed {ALLOWED:.0e}. Nothing is written for it. Use the network with timm."
                )
            yield Graph(kind, file, found, seen.told)


def _onnx(program: "torch.export.ExportedProgram", given: Given) -> tuple[bytes, Predict]:
    import onnx
    import onnxruntime
    import torch

    made: Any = torch.onnx.export(
        program, (), input_names=["images"], output_names=["logits"], opset_version=OPSET, dynamo=True, verbose=False
    )
    model = made.model_proto
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param == batch:
                size.dim_param = "batch"
    onnx.helper.set_model_props(model, {**_facts(given), CONFIG: given.files[CONFIG].decode()})
    model.producer_name, model.producer_version = "ray_ns", __version__
    file = model.SerializeToString()
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, quiet, providers=["CPUExecutionProvider"])
    return file, lambda images: np.asarray(session.run(["logits"], {"images": images})[0])


def _pt2(program: "torch.export.ExportedProgram", given: Given) -> tuple[bytes, Predict]:
    import torch

    sink = io.BytesIO()
    extra = {CONFIG: given.files[CONFIG].decode(), **_facts(given)}
    torch.export.save(program, sink, extra_files=extra)
    module = torch.export.load(io.BytesIO(sink.getvalue())).module()
    return sink.getvalue(), lambda images: module(torch.from_numpy(images)).numpy()


def _facts(given: Given) -> dict[str, str]:
    return {"sha256 of model.safetensors": sha256(given.files[WEIGHTS]), "made by": f"ray_ns {__version__}"}


def difference(network: "torch.nn.Module", predict: Predict, seen: np.ndarray) -> float:
    """The greatest difference of a probability from torch's, in batches of ``BATCH`` and of one; infinite for a NaN."""
    import torch

    greatest = 0.0
    for images in (seen[:1], *(seen[at : at + BATCH] for at in range(0, len(seen), BATCH))):
        there = torch.softmax(torch.from_numpy(predict(images)), 1)
        with torch.no_grad():
            here = torch.softmax(network(torch.from_numpy(images)), 1)
        gap = float((there - here).abs().max())
        greatest = max(greatest, gap if math.isfinite(gap) else math.inf)
    return greatest


def _refused(given: Given, form: str, error: Exception) -> InputError:
    words = " ".join(str(error).split())[:300] or "no message"
    return InputError(
        f"{given.place}: cannot be exported to {form} ({type(error).__name__}: {words}). Use the network with timm."
    )
