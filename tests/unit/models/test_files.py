"""A network's two files: what they hold, and that timm alone and this package read them back bit for bit."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.networks import MODELS, SMALL, VIT, outputs, trained
from timm.layers import DropPath
from torch import nn

from ray_ns.config import MIDDLE, Config, Data, Model
from ray_ns.errors import InputError
from ray_ns.models import zoo
from ray_ns.models.files import CONFIG, WEIGHTS, fed, from_files, to_files


@MODELS
@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_comes_back_from_its_files_bit_for_bit(data: Data, model: Model, channels: int) -> None:
    data = data.model_copy(update={"channels": channels, "mean": [0.5] * channels, "std": [0.25] * channels})
    network = trained(model, data)
    back = from_files(to_files(network, data))
    assert not back.training
    assert torch.equal(outputs(back, data), outputs(network, data))


@MODELS
def test_stock_timm_loads_the_two_files_bit_for_bit(data: Data, model: Model, tmp_path: Path) -> None:
    network = trained(model, data)
    files = to_files(network, data)
    assert set(files) == {WEIGHTS, CONFIG}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    stock = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(outputs(stock, data), outputs(network, data))
    told = stock.pretrained_cfg
    assert [tuple(told[name]) for name in ("input_size", "mean", "std")] == [(1, 16, 16), (0.5,), (0.25,)]
    assert (told["num_classes"], told["crop_pct"], told["interpolation"]) == (3, 1.0, "bilinear")


def described(network: nn.Module, data: Data, names: list[str] | None = None) -> dict[str, Any]:
    return json.loads(to_files(network, data, names)[CONFIG])


def test_the_description_names_the_classes_and_gives_nothing_twice(data: Data) -> None:
    network = trained(Model(name="resnet10t", args=SMALL, dropout=0.1), data)
    told = described(network, data, ["façade", "b", "c"])
    assert (told["label_names"], told["num_classes"]) == (["façade", "b", "c"], 3)
    wanted = {**SMALL, "in_chans": data.channels}
    assert {name: told["model_args"][name] for name in wanted} == wanted
    assert "num_classes" not in told["model_args"]
    assert described(network, data)["label_names"] == ["0", "1", "2"]  # else transformers takes 1,000 for ImageNet's


@pytest.mark.parametrize("name", ["resnet10t", "test_efficientnet", "test_vit", "efficientnet_b0", "convnext_atto"])
def test_the_description_inherits_nothing_of_timms_own_weights(data: Data, name: str) -> None:
    with torch.device("meta"):
        network = zoo.build(Model(name=name, args=VIT if "vit" in name else {}), data)
    network = network.to_empty(device="cpu")
    network.pretrained_cfg |= {"hf_hub_id": "x/y", "url": "http://x", "file": "/x", "test_input_size": (3, 300, 300)}
    network.pretrained_cfg |= {"test_crop_pct": 0.9, "paper_ids": "1", "description": "x", "label_descriptions": {}}
    told = described(network, data.model_copy(update={"size": 32}))
    inside = told["pretrained_cfg"]
    assert inside.keys() <= {
        *("num_classes", "classifier", "first_conv", "pool_size", "custom_load", "fixed_input_size", "min_input_size"),
        *("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode"),
    }
    assert inside["input_size"] == [1, 32, 32]
    assert [inside[key] for key in ("crop_mode", "crop_pct", "interpolation")] == ["squash", 1.0, "bilinear"]
    assert not {"tag", "license", "origin_url"} & told.keys()


@pytest.mark.parametrize("size", range(8, 400))
def test_timm_crops_the_share_that_is_nearest_to_ours(data: Data, size: int) -> None:
    told = fed(data.model_copy(update={"size": size, "fit": "crop"}))
    resized = math.floor(size / told["crop_pct"])  # as timm computes it
    assert told["crop_mode"] == "center"
    assert abs(resized - size / MIDDLE) <= 0.5
    assert told["crop_pct"] == pytest.approx(size / resized)
    told = fed(data.read_as(size=size, fit="crop", crop_share="paper", interpolation="bicubic"))
    assert (math.floor(size / told["crop_pct"]), told["interpolation"]) == (size + 32, "bicubic")


@MODELS
def test_files_of_earlier_runs_are_still_read(data: Data, model: Model) -> None:
    network = trained(model, data)
    files = to_files(network, data)
    config = json.loads(files[CONFIG])
    config["model_args"]["num_classes"] = 3
    config["pretrained_cfg"] |= {"tag": "a1_in1k", "crop_mode": "center", "license": "apache-2.0"}
    del config["label_names"]
    back = from_files({**files, CONFIG: json.dumps(config).encode()})
    assert torch.equal(outputs(back, data), outputs(network, data))


def test_the_files_are_the_same_bytes_every_time(config: Config) -> None:
    network = trained(config.teacher.model, config.data)
    assert to_files(network, config.data) == to_files(network, config.data)
    assert json.loads(to_files(network, config.data)[CONFIG])["architecture"] == "resnet10t"


def test_rates_that_are_asked_for_take_the_place_of_those_in_a_file_of_others(data: Data) -> None:
    files = to_files(trained(Model(name="test_vit", args=VIT), data), data)
    config = json.loads(files[CONFIG])
    config["model_args"] |= {"drop_path_rate": 0.3, "drop_rate": 0.3}
    others = {**files, CONFIG: json.dumps(config).encode()}
    assert droppings(from_files(others)) == pytest.approx([0.3, 0.3])
    assert droppings(from_files(others, drop_rate=0.0, drop_path_rate=0.0)) == [0, 0]
    assert droppings(from_files(others, drop_rate=0.2, drop_path_rate=0.1)) == pytest.approx([0.2, 0.1])


def droppings(network: Any) -> list[float]:
    """Dropout before the classifier, and the largest drop path."""
    paths = [it.drop_prob for it in network.modules() if isinstance(it, DropPath)]
    return [network.head_drop.p, max(paths, default=0.0)]


def test_a_rate_of_0_is_left_out_where_a_network_does_not_know_it(data: Data) -> None:
    larger = data.model_copy(update={"size": 32})
    dense = {"growth_rate": 4, "block_config": [1, 1, 1, 1]}
    files = to_files(zoo.build(Model(name="densenet121", args=dense), larger), larger)
    from_files(files, drop_rate=0.1, drop_path_rate=0.0)
    with pytest.raises(InputError, match=r"densenet121 takes no drop_path \(drop_path_rate\), found 0\.1"):
        from_files(files, drop_rate=0.0, drop_path_rate=0.1)
