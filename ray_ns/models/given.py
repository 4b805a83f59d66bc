"""A network that is given: its two files, whoever wrote them, read back with what they say of images and classes.

The folder may be of a run, or of timm. What ray_ns would do otherwise with an image than the ``config.json`` says is
refused. No pickle is read, and nothing that the file names is loaded from elsewhere.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from ray_ns.config import MIDDLE, Data, Model
from ray_ns.config.data import Interpolation
from ray_ns.errors import InputError
from ray_ns.images.decode import is_usual
from ray_ns.models.files import CONFIG, WEIGHTS, fresh, from_files, of_timm

if TYPE_CHECKING:
    from torch import nn

# Arguments of a network in ``model_args`` that settings of ours stand for, and that say nothing of where it comes from.
_KNOWN = {"in_chans", "num_classes", "drop_rate", "drop_path_rate", "global_pool"}


def data_of(config: bytes, where: str) -> tuple[Data, tuple[str, ...] | None]:
    """How a network is fed, and what its classes are called, by its ``config.json``, which lies in ``where``.

    Returns settings whose ``classes`` and ``config.FED`` are the network's; where images lie they do not say
    (``labelled`` and ``pool`` are ``where``). The names are in the order of the classes' numbers; None where the file
    has none but numbers.

    Raises ``InputError`` where the file is not in timm's form, or images would be decoded otherwise here than it says.
    """
    told = _mapping(config, where)
    fed = {**told, **(told.get("pretrained_cfg") or {})}
    classes = told.get("num_classes", fed.get("num_classes"))
    try:
        channels, height, width = fed["input_size"]
        if height != width:
            raise _otherwise(where, "input_size", fed["input_size"], "a square, [channels, side, side]")
        values = {"size": height, "channels": channels, "classes": classes, **_resizing(fed, height, where)}
        values |= {"mean": list(fed["mean"]), "std": list(fed["std"])}
        data = Data.model_validate({"labelled": where, "pool": where, **values})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{where}/{CONFIG}: {'.'.join(map(str, first['loc']))}: {first['msg']}, found {first['input']!r}. Such a "
            f"network is not one that ray-ns can feed."
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}/{CONFIG}: does not say how images are fed to the network ({type(error).__name__}: {error}); "
            f"expected input_size, mean, std in timm's pretrained_cfg. Give a network in timm's form."
        ) from None
    return data, _names(told, fed, data.classes, where)


def network_of(files: Mapping[str, bytes], where: str) -> "nn.Module":
    """The network of ``model.safetensors`` and ``config.json``, in eval mode on the CPU.

    Raises ``InputError`` where timm does not know it, its arguments would load something else, or the weights differ.
    """
    from ray_ns.models.zoo import check_arguments  # which loads torch

    told = _mapping(files[CONFIG], where)
    args = told.get("model_args") or {}
    try:
        check_arguments(Model(name=told["architecture"], args={key: args[key] for key in args.keys() - _KNOWN}))
        return from_files(dict(files))
    except Exception as error:  # a constructor may raise anything on wrong arguments
        words = " ".join(str(error).split())[:300]
        raise InputError(
            f"{where}: {WEIGHTS} and {CONFIG} make no network ({type(error).__name__}: {words}). Give a folder that "
            f"ray-ns or timm (push_to_hf_hub, save_for_hf) wrote, with a timm that knows its architecture."
        ) from error


def published(name: str) -> dict[str, bytes] | None:
    """The two files of the network whose weights timm has by that name; None where it knows no such network.

    They come from this machine's Hugging Face cache, else from the hub. Raises ``InputError`` where they cannot be had.
    """
    import timm

    from ray_ns.models.zoo import from_hub

    if not timm.is_model(name):
        return None
    path = from_hub(name)
    if path.suffix != ".safetensors":
        raise InputError(f"{name}: its weights are in {path.name}, and ray-ns reads .safetensors alone. Give others.")
    return {WEIGHTS: path.read_bytes(), CONFIG: of_timm(name)}


def wordnet_ids(config: bytes, place: str) -> tuple[str, ...] | None:
    """What ImageNet's folders call the classes of timm's weights of ImageNet-1k, by their numbers; None: of others.

    Which weights they are says the ``tag`` that timm writes into ``config.json``; without one ``place``, where it is a
    name of timm's.
    """
    from timm.data import ImageNetInfo
    from timm.models import get_pretrained_cfg, is_model_pretrained

    told = json.loads(config)
    fed = told.get("pretrained_cfg") or {}
    tag = fed.get("tag")
    if tag is None and is_model_pretrained(place) and (record := get_pretrained_cfg(place)) is not None:
        tag = record.tag
    names = tuple(ImageNetInfo("imagenet-1k").label_names())
    classes = told.get("num_classes", fed.get("num_classes"))
    return names if re.search(r"in1k(_\d+)?$", str(tag)) and classes == len(names) else None


def described(config: bytes) -> dict[str, Any]:
    """The architecture of a network, by timm's name (``model``), and how many ``parameters`` it has."""
    import torch

    from ray_ns.models.zoo import parameters

    with torch.device("meta"):
        return {"model": json.loads(config)["architecture"], "parameters": parameters(fresh(config))}


def unlike(config: bytes, model: Model, data: Data) -> str | None:
    """Why a network of ``model`` cannot begin with the weights of that of ``config``: the first tensor that differs.

    None: it can. Both are built without memory for their weights.
    """
    import torch

    from ray_ns.models.zoo import build

    with torch.device("meta"):
        shapes = [
            {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
            for network in (fresh(config), build(model, data))
        ]
    for name in {**shapes[0], **shapes[1]}:
        there, here = (of.get(name, "nothing") for of in shapes)
        if there != here:
            return f"{name} is {there} there, {here} here"
    return None


def _mapping(config: bytes, where: str) -> dict[str, Any]:
    try:
        told = json.loads(config)
        if not isinstance(told, dict) or not isinstance(told["architecture"], str):
            raise TypeError("its architecture is no name")
        if not isinstance(told.get("pretrained_cfg") or {}, dict) or not isinstance(told.get("model_args") or {}, dict):
            raise TypeError("its pretrained_cfg or model_args is no mapping")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{where}/{CONFIG}: is not timm's description of a network ({type(error).__name__}: {error}). Give a "
            f"folder that ray-ns or timm wrote."
        ) from None
    return told


def _resizing(fed: Mapping[str, Any], size: int, where: str) -> dict[str, Any]:
    """``fit``, ``crop_share`` and ``interpolation`` of a network."""
    interpolation: Any = fed.get("interpolation")
    if interpolation not in get_args(Interpolation):
        raise _otherwise(where, "interpolation", interpolation, " or ".join(get_args(Interpolation)))
    share, mode = float(fed.get("crop_pct") or MIDDLE), fed.get("crop_mode") or "center"
    if mode == "squash":
        if share != 1:
            raise _otherwise(where, "crop_pct", share, "1.0 with crop_mode squash")
        return {"fit": "squash", "interpolation": interpolation}
    if mode != "center":
        raise _otherwise(where, "crop_mode", mode, "center or squash")
    if not 0 < share <= 1:
        raise _otherwise(where, "crop_pct", share, "a share above 0, 1 at most, with crop_mode center")
    resized = math.floor(size / share)  # as timm computes it, of whole pixels
    usual = round(size / MIDDLE) == resized or is_usual(size, resized, interpolation)
    return {"fit": "crop", "crop_share": MIDDLE if usual else size / resized, "interpolation": interpolation}


def _otherwise(where: str, key: str, found: object, expected: str) -> InputError:
    return InputError(
        f"{where}/{CONFIG}: {key} is {found!r}; ray-ns decodes with {expected} only, and its labels would not be the "
        f"network's own. Use timm for this network, or train one with ray-ns."
    )


def _names(told: Mapping[str, Any], fed: Mapping[str, Any], classes: int, where: str) -> tuple[str, ...] | None:
    names = told.get("label_names") or fed.get("label_names")
    if isinstance(names, dict):  # timm's other form: {number: name}
        names = [names.get(str(number), str(number)) for number in range(classes)]
    if not names:
        return None
    if not isinstance(names, list) or len(names) != classes:
        raise InputError(
            f"{where}/{CONFIG}: label_names has {len(names)} names, num_classes is {classes}. Name each class, or none."
        )
    found = tuple(map(str, names))
    return None if found == tuple(map(str, range(classes))) else found
