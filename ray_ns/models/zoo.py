"""Networks by timm's names: checked, built with fresh or pretrained weights, frozen in part."""

import difflib
import hashlib
import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ray_ns.config import Data, Model
from ray_ns.errors import InputError
from ray_ns.models.files import CONFIG, WEIGHTS, made


def build(model: Model, data: Data, pretrained: Path | None = None) -> nn.Module:
    """A network for the run's classes and channels; torch's global generator draws its weights.

    ``pretrained``: a safetensors file with other first weights; timm adapts them to the numbers of classes and
    channels.

    Raises ``InputError`` if timm does not know the name (similar ones are named) or refuses an argument, or if the
    network has no dropout or drop path and a rate is asked for.
    """
    import timm

    check_arguments(model)
    if not timm.is_model(model.name):
        near = difflib.get_close_matches(model.name, timm.list_models(), 3, 0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise InputError(f"model.name: timm {timm.__version__} has no model {model.name!r}; {hint}")
    args: dict[str, Any] = {"num_classes": data.classes, "in_chans": data.channels, **model.args}
    try:
        if pretrained is not None:
            overlay = {"file": str(pretrained), "custom_load": False, **_classes_in(pretrained, model.name)}
            args |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
        network = made(model.name, model.rates, args)
        if pretrained is not None:
            _check_covered(network, pretrained)
    except InputError as error:
        raise InputError(f"model: {error}. Set it to 0, or take another model") from error
    except Exception as error:  # a constructor may raise anything on wrong arguments
        what = f"model.args: timm cannot build {model.name} with {model.args or 'none'}"
        if pretrained is not None:
            what = f"model.pretrained: the weights in {pretrained} do not fit {model.name} with {model.args or 'none'}"
        raise InputError(f"{what}: {error}") from error
    return network


# Arguments of timm that are set by settings of ours.
_SETTINGS = {
    "num_classes": "data.classes",
    "in_chans": "data.channels",
    "drop_rate": "model.dropout",
    "drop_path_rate": "model.drop_path",
    "checkpoint_path": "model.pretrained with model.sha256",
    "pretrained": "model.pretrained with model.sha256",
}
# Arguments that would make something else than a classifier in float32, or choose the device.
_OTHERS = {"features_only", "feature_cls", "out_indices", "device", "dtype"}


def check_arguments(model: Model) -> None:
    """Refuse arguments that would load unverified weights or change the network's task."""
    import timm
    from timm.models import build_model_with_cfg

    if ":" in model.name or "/" in model.name:
        raise InputError(
            f"model.name: {model.name} is a place, expected a name of timm's. Weights come by model.pretrained (a "
            f".safetensors file) with model.sha256."
        )
    for name in model.args:
        if name in _SETTINGS:
            raise InputError(f"model.args: {name} is given by {_SETTINGS[name]}. Use that, and leave {name} out.")
        factory = {
            *inspect.signature(timm.create_model).parameters,
            *inspect.signature(build_model_with_cfg).parameters,
        }
        if name in factory | _OTHERS or name.startswith("pretrained"):
            raise InputError(
                f"model.args: {name} says how timm makes a network, not which one. Leave it out; weights come by "
                f"model.pretrained with model.sha256."
            )


def pretrained_file(model: Model) -> Path | None:
    """The safetensors file of the model's first weights, its hash checked; None if it has random ones.

    ``model.pretrained: true`` downloads timm's weights from the Hugging Face hub, once per machine. Raises
    ``InputError`` if there are none, they cannot be downloaded, or their hash is not ``model.sha256``.
    """
    if not model.pretrained:
        return None
    try:
        path = Path(model.pretrained) if isinstance(model.pretrained, str) else from_hub(model.name)
    except InputError as error:
        raise InputError(f"model.pretrained: {error}") from error
    try:
        if path.suffix != ".safetensors":
            raise InputError(f"model.pretrained: {path} is no .safetensors file; others are not loaded")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"model.pretrained: {path} cannot be read ({error.strerror})") from error
    if model.sha256 is None:
        raise InputError(f"model.sha256: missing. Write down {found}, if {path} is the file that you mean")
    if found != model.sha256:
        raise InputError(
            f"model.sha256: {path} has {found}, expected {model.sha256}. Give the file that was meant, or its hash."
        )
    return path


def from_hub(name: str) -> Path:
    """The file of timm's weights of that name, from this machine's Hugging Face cache, else from the hub.

    Raises ``InputError`` where timm has none, or they cannot be had.
    """
    import timm
    from huggingface_hub import hf_hub_download
    from timm.models import is_model_pretrained

    told = timm.get_pretrained_cfg(name) if is_model_pretrained(name) else None
    if told is None or not told.hf_hub_id:
        known = timm.list_models(f"{name.split('.')[0]}*", pretrained=True)[:5] or ["none like it"]
        raise InputError(f"timm has no weights for {name!r}; it has {', '.join(known)}")
    try:
        return Path(hf_hub_download(told.hf_hub_id, told.hf_hub_filename or WEIGHTS))
    except Exception as error:  # the hub's client raises many kinds of errors
        raise InputError(
            f"{told.hf_hub_id} cannot be had from the Hugging Face hub ({type(error).__name__}). Without a network, "
            f"fetch its {WEIGHTS} elsewhere and give the file's path; a network is given with its {CONFIG} beside it."
        ) from error


def _classes_in(path: Path, name: str) -> dict[str, int]:
    """``num_classes`` of a file of weights; timm keeps the file's classifier if the run has as many classes."""
    import timm
    from safetensors import safe_open

    told = timm.get_pretrained_cfg(name)
    with safe_open(path, "pt") as file:
        key = f"{told.classifier if told else None}.weight"
        return {"num_classes": file.get_slice(key).get_shape()[0]} if key in file.keys() else {}  # noqa: SIM118


def _check_covered(network: nn.Module, path: Path) -> None:
    """Raise ``ValueError`` if a file lacks weights other than the classifier's; timm would not say so."""
    from safetensors import safe_open

    config: Any = network.pretrained_cfg
    told = config["classifier"]
    heads = tuple(f"{name}." for name in ([told] if isinstance(told, str) else told or ()))
    with safe_open(path, "pt") as file:
        held = set(file.keys())
    missing = [name for name, _ in network.named_parameters() if name not in held and not name.startswith(heads)]
    if missing:
        raise ValueError(f"{len(missing)} weights are not in the file, such as {missing[0]}")


def freeze(network: nn.Module, layers: int) -> None:
    """Freeze the first ``layers`` of a network, as timm numbers them: the stem, then each block.

    Raises ``InputError`` if no layer would be left to train.
    """
    if not layers:
        return
    from timm.models import group_parameters

    timms: Any = network
    groups = group_parameters(network, timms.group_matcher())
    if layers >= len(groups):
        raise InputError(f"finetune.freeze = {layers} leaves nothing to train: the network has {len(groups)} layers")
    for number in sorted(groups)[:layers]:
        for name in groups[number]:
            network.get_parameter(name).requires_grad_(False)


def check(model: Model, data: Data) -> nn.Module:
    """The network of ``model`` on torch's meta device (no memory for weights), after a forward pass of shapes.

    Raises ``InputError`` as ``build`` does, or if the network cannot take images of ``data.size``.
    """
    with torch.device("meta"):
        network = build(model, data).eval()
        try:
            network(torch.empty(2, data.channels, data.size, data.size))
        except Exception as error:
            raise InputError(
                f"model.name: {model.name} cannot take images of {data.size} x {data.size} pixels ({error}). "
                f"Change data.size, or train_size and test_size of the recipe, or model.args."
            ) from error
    return network


def check_batch(network: nn.Module, data: Data, images: int) -> None:
    """Raise ``InputError`` if a network from ``check`` cannot be trained on so few images at once.

    Batch norm needs more than one value per channel: more than one image where a feature map has one pixel.
    """
    try:
        network.train()(torch.empty(images, data.channels, data.size, data.size, device="meta"))
    except ValueError as error:
        raise InputError(
            f"batch: a training worker's network sees {images} images of {data.size} x {data.size} pixels at once, "
            f"too few for its batch norm ({error}). Raise batch (and cluster.train_microbatch, where "
            f"it is set), or lower cluster.train_workers."
        ) from error
    finally:
        network.eval()


def parameters(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(weight.numel() for weight in network.parameters())
