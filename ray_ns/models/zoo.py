"""Models by timm name: built from the config, written as safetensors + config.json, loaded back.

The two files are in the layout of the Hugging Face hub, so ``timm.create_model("local-dir:FOLDER", pretrained=True)``
loads them without this package.
"""

import difflib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ray_ns.config import Data, Model
from ray_ns.errors import InputError
from ray_ns.models.names import CONFIG, WEIGHTS


def build(model: Model, data: Data) -> nn.Module:
    """A fresh network for the run's classes and channels; torch's global generator decides its weights.

    Raises ``InputError`` where timm does not know the name (the nearest ones are named) or refuses an argument.
    """
    import timm

    if not timm.is_model(model.name):
        near = difflib.get_close_matches(model.name, timm.list_models(), 3, 0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise InputError(f"model.name: timm {timm.__version__} has no model {model.name!r}; {hint}")
    rates: dict[str, Any] = {"drop_rate": model.dropout or None, "drop_path_rate": model.drop_path or None}
    try:
        network: nn.Module = timm.create_model(
            model.name, num_classes=data.classes, in_chans=data.channels, **rates, **model.args
        )
    except Exception as error:  # whatever a constructor raises on arguments it was not made for
        raise InputError(f"model.args: timm cannot build {model.name} with {model.args or 'none'}: {error}") from error
    return network


def check(model: Model, data: Data) -> nn.Module:
    """``model`` without memory for its weights, after one image's shape went through it.

    Raises ``InputError`` as ``build`` does, or where the network cannot take images of ``data.size``.
    """
    with torch.device("meta"):
        network = build(model, data).eval()
        try:
            network(torch.empty(2, data.channels, data.size, data.size))
        except Exception as error:
            raise InputError(
                f"model.name: {model.name} cannot take images of {data.size} x {data.size} pixels ({error}). "
                f"Change data.size or model.args."
            ) from error
    return network


def parameters(network: nn.Module) -> int:
    """Number of trained weights."""
    return sum(weight.numel() for weight in network.parameters())


def to_files(network: nn.Module, data: Data) -> dict[str, bytes]:
    """``model.safetensors`` and ``config.json`` of a network that ``build`` made."""
    from safetensors.torch import save
    from timm.models._hub import save_config_for_hf

    shape = {"input_size": (data.channels, data.size, data.size), "mean": tuple(data.mean), "std": tuple(data.std)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CONFIG
        save_config_for_hf(network, str(path), data_config={**shape, "interpolation": "bilinear", "crop_pct": 1.0})
        config = path.read_bytes()
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return {WEIGHTS: save(weights), CONFIG: config}


def from_files(files: dict[str, bytes]) -> nn.Module:
    """The network that ``to_files`` wrote, in eval mode on the CPU. No pickle is read."""
    import timm
    from safetensors.torch import load

    config: dict[str, Any] = json.loads(files[CONFIG])
    args = {"num_classes": config["num_classes"], **config.get("model_args", {})}
    network: nn.Module = timm.create_model(config["architecture"], **args)
    network.load_state_dict(load(files[WEIGHTS]))
    return network.eval()
