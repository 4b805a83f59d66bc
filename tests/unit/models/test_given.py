"""A network that is given: what its config.json says is read back, and what would be decoded otherwise is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.networks import MODELS, SMALL, outputs, trained
from timm.models._hub import save_for_hf

from ray_ns.config import FED, Data, Model
from ray_ns.errors import InputError
from ray_ns.images.decode import Decode
from ray_ns.models.files import CONFIG, fed, of_timm, to_files
from ray_ns.models.given import data_of, network_of, wordnet_ids

NAMES = ["façade", "b", "c"]


def small(data: Data, names: list[str] | None = None) -> dict[str, bytes]:
    return to_files(trained(Model(name="resnet10t", args=SMALL), data), data, names)


def changed(files: dict[str, bytes], change: Callable[[dict[str, Any]], object]) -> bytes:
    told = json.loads(files[CONFIG])
    change(told)
    return json.dumps(told).encode()


@pytest.mark.parametrize("fit", ["squash", "crop"])
@pytest.mark.parametrize("size", [8, 28, 48, 56, 97, 224, 299, 384])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_a_run_wrote_comes_back_as_its_settings(data: Data, fit: str, size: int, channels: int) -> None:
    per_channel = {"mean": [0.4801, 0.2, 0.31][:channels], "std": [0.1307, 0.1, 0.9][:channels]}
    data = data.model_copy(update={"fit": fit, "size": size, "channels": channels, **per_channel})
    with torch.device("meta"):
        network = trained(Model(name="resnet10t", args=SMALL), data.model_copy(update={"size": 16}))
    back, names = data_of(to_files(network.to_empty(device="cpu"), data, NAMES)[CONFIG], "place")
    told = ("classes", *FED)
    assert [getattr(back, name) for name in told] == [getattr(data, name) for name in told]
    assert names == tuple(NAMES)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop_share", [0.875, 0.9, 0.5, 1.0, "paper"])
@pytest.mark.parametrize("size", [8, 48, 220, 224, 240, 600])
def test_any_crop_comes_back_as_the_same_pixels(
    data: Data, size: int, crop_share: float | str, interpolation: str
) -> None:
    data = data.read_as(size=size, fit="crop", crop_share=crop_share, interpolation=interpolation)
    told = {"architecture": "resnet10t", "num_classes": data.classes, "pretrained_cfg": fed(data)}
    back, _ = data_of(json.dumps(told).encode(), "place")
    assert Decode.of(back) == Decode.of(data)
    if crop_share == "paper" and size in (240, 600):
        assert Decode.of(back).resized == size + 32


def test_numbers_are_no_names(data: Data) -> None:
    assert data_of(small(data)[CONFIG], "place")[1] is None


@MODELS
def test_a_network_comes_back_bit_for_bit(data: Data, model: Model) -> None:
    network = trained(model, data)
    assert torch.equal(outputs(network_of(to_files(network, data), "place"), data), outputs(network, data))


def test_what_timm_itself_wrote_is_read(tmp_path: Path) -> None:
    """A share of 0.875 as timm counts it: its 54 pixels of 48 are our 55."""
    network = timm.create_model("resnet10t", num_classes=3, channels=[8, 8, 16, 16]).eval()
    feed = {"input_size": (3, 48, 48), "interpolation": "bilinear", "crop_pct": 0.875}
    save_for_hf(network, tmp_path, {"pretrained_cfg": feed, "label_names": NAMES}, safe_serialization=True)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    data, names = data_of(files[CONFIG], str(tmp_path))
    assert (data.size, data.fit, data.mean, names) == (48, "crop", [0.485, 0.456, 0.406], tuple(NAMES))
    assert torch.equal(outputs(network_of(files, "place"), data), outputs(network, data))


@pytest.mark.parametrize(
    ("name", "resized"), [("tf_efficientnet_b0", 256), ("tf_efficientnet_b7", 632), ("tf_efficientnet_l2", 833)]
)
def test_the_published_networks_of_the_paper_are_fed_as_timm_feeds_them(name: str, resized: int, data: Data) -> None:
    """The paper crops size / (size + 32), bicubic; timm rounds that share to three digits, and L2 has another."""
    published = timm.get_pretrained_cfg(f"{name}.ns_jft_in1k").to_dict()
    told = {"architecture": name, "num_classes": 1000, "pretrained_cfg": published}
    found, _ = data_of(json.dumps(told).encode(), "place")
    assert (found.fit, found.interpolation, found.classes) == ("crop", "bicubic", 1000)
    assert (found.size, found.resized) == (published["input_size"][1], resized)
    assert Decode.of(found).resized == resized


@pytest.mark.parametrize("share", [1.5, -0.5])
def test_a_crop_of_more_than_the_image_is_refused(data: Data, share: float) -> None:
    config = changed(small(data.read_as(fit="crop")), lambda told: told["pretrained_cfg"].update(crop_pct=share))
    with pytest.raises(InputError, match=f"crop_pct is {share}; ray-ns decodes with a share above 0, 1 at most"):
        data_of(config, "place")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("interpolation", "lanczos", "interpolation is 'lanczos'; ray-ns decodes with bilinear or bicubic only"),
        ("interpolation", None, "interpolation is None"),
        ("crop_pct", 0.95, "crop_pct is 0.95; ray-ns decodes with 1.0 with crop_mode squash only"),
        ("crop_mode", "border", "crop_mode is 'border'"),
        ("input_size", [1, 16, 24], r"input_size is \[1, 16, 24\]"),
        ("input_size", [4, 16, 16], "channels: .*found 4"),
        ("input_size", None, "does not say how images are fed"),
        ("mean", [0.5, 0.5], "mean has 2 values"),
        ("std", 3, "does not say how images are fed"),
    ],
)
def test_what_would_be_decoded_otherwise_is_refused_by_name(data: Data, key: str, value: Any, said: str) -> None:
    config = changed(small(data), lambda told: told["pretrained_cfg"].update({key: value}))
    with pytest.raises(InputError, match=f"^place/config.json: .*{said}") as caught:
        data_of(config, "place")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config", [b"", b"[]", b"{}", b"[" * 100_000, b'{"architecture": 3}', b'{"architecture": "x", "model_args": [1]}']
)
def test_another_file_of_that_name_is_refused(config: bytes) -> None:
    with pytest.raises(InputError, match="is not timm's description of a network"):
        data_of(config, "place")
    with pytest.raises(InputError, match="is not timm's description of a network"):
        network_of({CONFIG: config}, "place")


def test_names_that_are_not_of_all_classes_are_refused(data: Data) -> None:
    config = changed(small(data), lambda told: told.update(label_names=["a", "b"]))
    with pytest.raises(InputError, match="label_names has 2 names, num_classes is 3"):
        data_of(config, "place")


def test_names_by_number_are_read(data: Data) -> None:
    config = changed(small(data), lambda told: told.update(label_names={"0": "a", "2": "c"}))
    assert data_of(config, "place")[1] == ("a", "1", "c")


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "hf-hub:someone/model"},
        {"architecture": "no_such_model"},
        {"model_args": {"in_chans": 1, "checkpoint_path": "/tmp/evil.pth"}},
        {"model_args": {"in_chans": 1, "pretrained": True}},
        {"model_args": {"in_chans": 1, "pretrained_cfg": {"file": "/tmp/evil.pth"}}},
        {"model_args": {"in_chans": 1, "features_only": True}},
        {"model_args": {"in_chans": 3}},
        {"num_classes": 4},
    ],
    ids=str,
)
def test_what_makes_no_network_or_loads_another_is_refused(data: Data, change: dict[str, Any]) -> None:
    files = small(data)
    with pytest.raises(InputError, match=r"^place: model.safetensors and config.json make no network") as caught:
        network_of({**files, CONFIG: changed(files, lambda told: told.update(change))}, "place")
    assert "\n" not in str(caught.value)


def test_weights_that_are_cut_short_are_refused(data: Data) -> None:
    files = small(data)
    with pytest.raises(InputError, match="make no network"):
        network_of(files | {"model.safetensors": files["model.safetensors"][:1000]}, "place")


NOISY_STUDENTS = [it for it in timm.list_models(pretrained=True) if ".ns_jft_in1k" in it]


def tagged(tag: str, classes: int) -> bytes:
    """A ``config.json`` as timm has it on the hub."""
    return json.dumps({"architecture": "resnet18", "num_classes": classes, "pretrained_cfg": {"tag": tag}}).encode()


@pytest.mark.parametrize(
    "name", [*NOISY_STUDENTS, "resnet18.a1_in1k", "resnet18", "convnext_base.fb_in22k_ft_in1k_384"]
)
def test_weights_of_imagenet_1k_know_its_folders(name: str) -> None:
    found = wordnet_ids(of_timm(name), name)
    assert found is not None
    assert (len(found), found[0], found[6], found[999]) == (1000, "n01440764", "n01498041", "n15075141")
    record = timm.get_pretrained_cfg(name)
    assert record is not None
    assert wordnet_ids(tagged(record.tag, 1000), "/a/folder") == found


@pytest.mark.parametrize(
    ("config", "place"),
    [
        (of_timm("vit_base_patch16_224.augreg_in21k"), "vit_base_patch16_224.augreg_in21k"),
        (of_timm("resmlp_12_224.fb_dino"), "resmlp_12_224.fb_dino"),
        (tagged("a1_in1k", 10), "/a/folder"),
        (tagged("mine", 1000), "/a/folder"),
        (json.dumps({"architecture": "resnet18", "num_classes": 1000}).encode(), "resnet18.mine"),
        (json.dumps({"architecture": "resnet18", "num_classes": 1000}).encode(), "/a/folder"),
    ],
)
def test_no_other_network_is_taken_for_one_of_imagenet_1k(config: bytes, place: str) -> None:
    assert wordnet_ids(config, place) is None
