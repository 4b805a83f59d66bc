"""A network's two files, ``model.safetensors`` and ``config.json``: writing and loading them.

They are in the layout of the Hugging Face hub, so ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads them
without this package, as does ``transformers.pipeline("image-classification", model="FOLDER")``.
"""

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_ns.config import Data
from ray_ns.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
RATES = {"drop_rate": "dropout", "drop_path_rate": "drop_path"}  # timm's arguments, and our settings

# The entries of timm's pretrained_cfg that are kept: how the network is built and fed, not where weights come from.
_KEPT = {
    *("num_classes", "classifier", "first_conv", "pool_size", "custom_load"),
    *("input_size", "fixed_input_size", "min_input_size"),
    *("mean", "std", "interpolation", "crop_pct", "crop_mode"),
}


def to_files(network: "nn.Module", data: Data, class_names: Sequence[str] | None = None) -> dict[str, bytes]:
    """``model.safetensors`` and ``config.json`` of a network that ``build`` made.

    ``class_names``: in the order of the classes' numbers; None: the numbers are the names. timm and transformers read
    them, and how an image is resized and cropped, which is as ``images.decode`` does it.
    """
    from safetensors.torch import save
    from timm.models._hub import save_config_for_hf

    names = list(class_names) if class_names is not None else [str(number) for number in range(data.classes)]
    feed = fed(data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CONFIG
        save_config_for_hf(network, str(path), {"label_names": names}, data_config=feed)
        config = json.loads(path.read_bytes())
    config["model_args"].pop("num_classes", None)  # transformers passes it itself
    config["pretrained_cfg"] = {key: it for key, it in (config["pretrained_cfg"] | feed).items() if key in _KEPT}
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return {WEIGHTS: save(held), CONFIG: json.dumps(config, indent=2).encode()}


def fed(data: Data) -> dict[str, Any]:
    """How images are fed to a network, in timm's terms. timm crops whole pixels of a resized image."""
    crop = {"crop_pct": 1.0, "crop_mode": "squash"}
    if data.fit == "crop":
        share = data.size / data.resized
        if math.floor(data.size / share) < data.resized:  # as timm computes it
            share = math.nextafter(share, 0)
        crop = {"crop_pct": share, "crop_mode": "center"}
    shape = {"input_size": (data.channels, data.size, data.size), "mean": tuple(data.mean), "std": tuple(data.std)}
    return {**shape, "interpolation": data.interpolation, **crop}


def from_files(files: dict[str, bytes], **rates: float) -> "nn.Module":
    """The network that ``to_files`` wrote, in eval mode on the CPU. No pickle is read.

    ``rates``: timm's drop_rate and drop_path_rate, which the files do not hold: nothing drops in eval mode.
    """
    network = fresh(files[CONFIG], **rates)
    network.load_state_dict(weights(files[WEIGHTS]))
    return network.eval()


def fresh(config: bytes, **rates: float) -> "nn.Module":
    """The network that a ``config.json`` describes, with new weights; ``rates`` as in ``made``."""
    told: dict[str, Any] = json.loads(config)
    args = {"num_classes": told["num_classes"], **told.get("model_args", {})}
    return made(told["architecture"], rates, {name: it for name, it in args.items() if name not in rates})


def made(name: str, rates: Mapping[str, float], args: Mapping[str, Any]) -> "nn.Module":
    """The network of timm's by that name, with new weights.

    ``rates``: timm's drop_rate and drop_path_rate. Where its constructor does not know one, a 0 is left out, since
    nothing drops then, and a rate above 0 raises ``InputError``.
    """
    import timm
    import torch

    told: dict[str, Any] = {**args, **rates}
    state = torch.get_rng_state()
    try:
        network: nn.Module = timm.create_model(name, **told)
        return network
    except TypeError as error:
        unknown = {it for it in rates if "unexpected keyword argument" in str(error) and f"'{it}'" in str(error)}
        if not unknown:
            raise
        for it in unknown:
            if rates[it]:
                raise InputError(f"{name} takes no {RATES[it]} ({it}), found {rates[it]:g}") from error
    torch.set_rng_state(state)  # whatever it drew before it failed
    return made(name, {it: rate for it, rate in rates.items() if it not in unknown}, args)


def of_timm(name: str) -> bytes:
    """The ``config.json`` of timm's weights of that name: how they are fed, by timm's own record of them."""
    import timm

    record = timm.get_pretrained_cfg(name)
    assert record is not None, "its weights have been found by it"
    told = record.to_dict()
    kept = {key: told[key] for key in sorted(_KEPT & told.keys())}
    named = {"architecture": told["architecture"], "num_classes": told["num_classes"]}
    return json.dumps({**named, "pretrained_cfg": kept}, indent=2).encode()


def weights(file: bytes) -> Mapping[str, "Tensor"]:
    """The tensors of a ``model.safetensors``."""
    from safetensors.torch import load

    tensors: Mapping[str, Tensor] = load(file)
    return tensors
