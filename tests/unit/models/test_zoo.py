"""Networks by timm's names: what is refused, what is built, which weights it begins with."""

import hashlib
import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from support.networks import MODELS, SMALL, VIT, outputs, trained
from timm.layers import DropPath
from timm.models import build_model_with_cfg
from torch import nn

from ray_ns.config import Config, Data, Model
from ray_ns.errors import InputError
from ray_ns.models import zoo
from ray_ns.models.files import CONFIG, WEIGHTS, to_files


def test_an_unknown_model_is_refused_with_the_nearest_names(data: Data) -> None:
    with pytest.raises(InputError, match=r"model\.name: .* has no model 'resnet10x'; did you mean .*resnet10t"):
        zoo.build(Model(name="resnet10x"), data)


def test_a_name_like_no_other_is_refused(data: Data) -> None:
    with pytest.raises(InputError, match=r"model\.name: .* has no model 'qqqqqqqqq'; see timm\.list_models"):
        zoo.build(Model(name="qqqqqqqqq"), data)


@pytest.mark.parametrize(
    "args",
    [
        {"nope": 1},
        {"channels": "wide"},
        {"stem_type": 3},
        {"block": "basic"},
        {"layers": [1]},
    ],
    ids=lambda args: next(iter(args)),
)
def test_arguments_that_timm_cannot_use_are_refused_by_name(data: Data, args: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"model\.args: timm cannot build resnet10t with .*{next(iter(args))}"):
        zoo.build(Model(name="resnet10t", args=args), data)


SETTINGS = {
    "num_classes": "data.classes",
    "in_chans": "data.channels",
    "drop_rate": "model.dropout",
    "drop_path_rate": "model.drop_path",
    "checkpoint_path": "model.pretrained with model.sha256",
    "pretrained": "model.pretrained with model.sha256",
}
PAST = ["pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "scriptable", "exportable", "no_jit", "kwargs_filter"]
PAST += ["features_only", "feature_cfg", "feature_cls", "out_indices", "device", "dtype", "model_cfg", "model_cls"]
PAST += ["pretrained_strict", "pretrained_filter_fn", "pretrained_custom_load", "pretrained_model_args"]


@pytest.mark.parametrize("name", [*SETTINGS, *PAST])
@pytest.mark.parametrize("value", [None, False, 1, "x", {"url": "http://127.0.0.1:9/w"}], ids=repr)
def test_arguments_that_reach_past_the_network_are_refused_by_name(data: Data, name: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        zoo.build(Model(name="resnet10t", args={**SMALL, name: value}), data)
    assert f"model.args: {name} " in str(caught.value)
    assert SETTINGS.get(name, "model.pretrained with model.sha256") in str(caught.value)


def test_every_argument_of_timms_factories_is_refused(data: Data) -> None:
    # A later timm may have others: none of them may reach a network unseen.
    for function in (timm.create_model, build_model_with_cfg):
        for name in inspect.signature(function).parameters:
            with pytest.raises(InputError, match=f"model.args: {name} "):
                zoo.build(Model(name="resnet10t", args={name: None}), data)


def test_a_pickle_named_in_the_arguments_is_never_opened(data: Data, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "opened",))

    (tmp_path / "w.pth").write_bytes(pickle.dumps(Evil()))
    state = zoo.build(Model(name="resnet10t", args=SMALL), data).state_dict()
    torch.save({name: torch.zeros_like(it) for name, it in state.items()}, tmp_path / "zeros.pth")
    for file in ("w.pth", "zeros.pth"):
        with pytest.raises(InputError, match="checkpoint_path is given by"):
            zoo.build(Model(name="resnet10t", args={**SMALL, "checkpoint_path": str(tmp_path / file)}), data)
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18.a1_in1k", "hf_hub:x/y", "local-dir:/tmp/x", "timm/resnet18"])
def test_a_place_instead_of_a_name_is_refused_with_the_settings(data: Data, name: str) -> None:
    with pytest.raises(InputError, match=r"model\.name: .* is a place, .*model\.pretrained .*model\.sha256"):
        zoo.build(Model(name=name), data)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vgg11"])
def test_an_image_size_the_model_cannot_take_is_refused(data: Data, name: str) -> None:
    with pytest.raises(InputError, match=rf"model\.name: {name} cannot take images of 16 x 16 .*Change data\.size"):
        zoo.check(Model(name=name), data)


@MODELS
def test_check_counts_the_weights_that_build_makes_without_making_them(data: Data, model: Model) -> None:
    assert zoo.parameters(zoo.check(model, data)) == zoo.parameters(zoo.build(model, data)) > 0


def test_check_takes_no_memory_for_weights(data: Data) -> None:
    huge = Model(name="resnet10t", args={"channels": [16_384] * 4})
    assert zoo.parameters(zoo.check(huge, data)) > 10**10


def test_the_generator_decides_the_first_weights(config: Config) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(zoo.build(config.teacher.model, config.data).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_dropout_reaches_the_classifier_and_drop_path_grows_linearly(data: Data) -> None:
    network = zoo.build(Model(name="test_vit", args=VIT, dropout=0.3, drop_path=0.2), data)
    rates = [module.drop_prob for module in network.modules() if isinstance(module, DropPath)]
    assert len(rates) >= 6
    # two per block, the first block has none; the last has the whole rate
    np.testing.assert_allclose(rates, np.repeat(np.linspace(0, 0.2, len(rates) // 2 + 1)[1:], 2), atol=1e-6)
    assert network.head_drop.p == 0.3


def test_a_resnet_takes_dropout_and_drop_path_too(data: Data) -> None:
    network = zoo.build(Model(name="resnet10t", args=SMALL, dropout=0.3, drop_path=0.3), data)
    rates = [module.drop_prob for module in network.modules() if isinstance(module, DropPath)]
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3])
    torch.manual_seed(0)
    images = torch.randn(8, 1, 16, 16)  # of equal ones batch norm leaves nothing but rounding
    assert not torch.equal(network.train()(images), network(images))
    assert torch.equal(network.eval()(images), network(images))


def test_without_rates_nothing_is_dropped(data: Data) -> None:
    network = zoo.build(Model(name="test_vit", args=VIT), data)
    assert not any(isinstance(module, DropPath) for module in network.modules())
    assert {module.p for module in network.modules() if isinstance(module, nn.Dropout)} <= {0.0}


def rates_of(model: Model, data: Data) -> tuple[float, float]:
    """The largest dropout and drop path of a network, as it would train."""
    with torch.device("meta"):
        network: Any = zoo.build(model, data)
    modules = list(network.modules())
    dropout = [it.p for it in modules if isinstance(it, nn.Dropout)]
    dropout += [it.drop_rate for it in modules if isinstance(getattr(it, "drop_rate", None), float)]
    drop_path = [it.drop_prob for it in modules if isinstance(it, DropPath)]
    return max(dropout, default=0.0), max(drop_path, default=0.0)


@pytest.mark.parametrize(
    ("name", "args", "dropout", "drop_path"),
    [
        ("swin_s3_tiny_224", {"depths": [1, 1, 2, 1], "embed_dim": 24}, 0.0, 0.1),
        ("nest_tiny", {}, 0.0, 0.5),
        ("rexnet_100", {}, 0.2, 0.0),
        ("ghostnet_050", {}, 0.2, 0.0),
        ("legacy_seresnet18", {}, 0.2, 0.0),
    ],
)
def test_a_rate_of_0_is_0_whatever_timm_gives_a_network_by_itself(
    data: Data, name: str, args: dict[str, Any], dropout: float, drop_path: float
) -> None:
    rgb = data.model_copy(update={"channels": 3})
    assert rates_of(Model(name=name, args=args), rgb) == (0, 0)
    assert rates_of(Model(name=name, args=args, dropout=0.0, drop_path=0.0), rgb) == (0, 0)
    assert rates_of(Model(name=name, args=args, own_rates=True), rgb) == pytest.approx((dropout, drop_path))


@pytest.mark.parametrize("name", ["resnet10t", "test_vit", "lcnetv2_small"])
@pytest.mark.parametrize("own_rates", [False, True])
def test_where_timm_has_no_rate_of_its_own_a_0_leaves_weights_draws_and_files_as_they_were(
    data: Data, name: str, own_rates: bool
) -> None:
    args = VIT if "vit" in name else {}
    torch.manual_seed(5)
    plain = timm.create_model(name, num_classes=data.classes, in_chans=data.channels, **args)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    network = zoo.build(Model(name=name, args=args, own_rates=own_rates), data)
    assert torch.equal(torch.rand(1), drawn)
    assert to_files(network, data) == to_files(plain, data)


@pytest.mark.parametrize("name", ["vgg11", "densenet121", "hrnet_w18_small"])
def test_a_drop_path_for_a_network_that_has_none_is_refused_by_the_setting_and_0_is_not(data: Data, name: str) -> None:
    words = rf"model: {name} takes no drop_path \(drop_path_rate\), found 0\.1\. Set it to 0, or take another model"
    with torch.device("meta"):
        with pytest.raises(InputError, match=words):
            zoo.build(Model(name=name, drop_path=0.1), data)
        zoo.build(Model(name=name), data)


def saved(model: Model, data: Data, folder: Path) -> tuple[Path, str]:
    """The weights of a trained network as a file, and their hash."""
    content = to_files(trained(model, data), data)[WEIGHTS]
    path = folder / "weights.safetensors"
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


def test_pretrained_weights_come_from_the_file_whose_hash_is_pinned(data: Data, tmp_path: Path) -> None:
    plain = Model(name="test_vit", args=VIT)
    path, sha256 = saved(plain, data, tmp_path)
    model = Model(name="test_vit", args=VIT, pretrained=str(path), sha256=sha256)
    network = zoo.build(model, data, zoo.pretrained_file(model)).eval()
    assert torch.equal(outputs(network, data), outputs(trained(plain, data), data))
    assert str(tmp_path) not in to_files(network, data)[CONFIG].decode()


def test_for_other_classes_only_the_classifier_begins_anew(data: Data, tmp_path: Path) -> None:
    plain = Model(name="test_vit", args=VIT)
    path, _ = saved(plain, data, tmp_path)
    network = zoo.build(plain, data.model_copy(update={"classes": 5}), path)
    before = trained(plain, data).state_dict()
    changed = {name for name, it in network.state_dict().items() if not torch.equal(it, before[name])}
    assert changed == {"head.weight", "head.bias"}


def test_weights_with_another_hash_or_none_are_refused(data: Data, tmp_path: Path) -> None:
    path, sha256 = saved(Model(name="test_vit", args=VIT), data, tmp_path)
    with pytest.raises(InputError, match=f"sha256: missing. Write down {sha256}"):
        zoo.pretrained_file(Model(name="test_vit", pretrained=str(path)))
    with pytest.raises(InputError, match=f"has {sha256}, expected {'0' * 64}"):
        zoo.pretrained_file(Model(name="test_vit", pretrained=str(path), sha256="0" * 64))


def test_what_is_no_safetensors_file_is_never_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"weights\.pth is no \.safetensors file"):
        zoo.pretrained_file(Model(name="test_vit", pretrained=str(tmp_path / "weights.pth"), sha256="0" * 64))
    with pytest.raises(InputError, match=r"none\.safetensors cannot be read"):
        zoo.pretrained_file(Model(name="test_vit", pretrained=str(tmp_path / "none.safetensors"), sha256="0" * 64))


def test_weights_of_another_model_are_refused_with_the_file(data: Data, tmp_path: Path) -> None:
    path, _ = saved(Model(name="test_vit", args=VIT), data, tmp_path)
    with pytest.raises(InputError, match=rf"model\.pretrained: the weights in {path} do not fit resnet10t"):
        zoo.build(Model(name="resnet10t", args=SMALL), data, path)


def test_without_a_network_the_hub_is_named_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object) -> str:
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(InputError, match=r"timm/resnet18.* cannot be had .*fetch its model\.safetensors elsewhere"):
        zoo.pretrained_file(Model(name="resnet18", pretrained=True, sha256="0" * 64))
    with pytest.raises(InputError, match="timm has no weights for 'efficientnet_l2'; it has"):
        zoo.pretrained_file(Model(name="efficientnet_l2", pretrained=True, sha256="0" * 64))


def test_frozen_layers_are_the_stem_and_then_the_blocks(data: Data) -> None:
    network = zoo.build(Model(name="test_efficientnet"), data)
    zoo.freeze(network, 2)
    frozen = {name.rpartition(".")[0] for name, it in network.named_parameters() if not it.requires_grad}
    assert {"conv_stem", "bn1"} < frozen
    assert {name.split(".")[0] for name in frozen} == {"conv_stem", "bn1", "blocks"}
    assert {name[:10] for name in frozen if name.startswith("blocks")} == {"blocks.0.0"}
    with pytest.raises(InputError, match=r"finetune\.freeze = 99 leaves nothing to train: the network has \d+ layers"):
        zoo.freeze(network, 99)
