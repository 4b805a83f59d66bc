"""Which network a place means: a run's best one, or that of a folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.cached import PUBLISHED, cached
from support.format_1 import unpack

from ray_ns.artifacts.report import best_network, report_of
from ray_ns.config.read import load
from ray_ns.errors import InputError, IntegrityError
from ray_ns.export.network import folder_for, given
from ray_ns.models.files import CONFIG, WEIGHTS, fed, of_timm
from ray_ns.models.given import data_of, network_of
from ray_ns.seals import sha256
from ray_ns.store.objects import LocalStore


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("format_1"))


def test_a_run_means_its_best_network_fed_as_its_settings_say(folder: Path) -> None:
    run = folder / "finished"
    report = report_of(LocalStore(run))
    assert report is not None
    value = report.value(LocalStore(run))
    found = given(str(run))
    assert found.run == LocalStore(run)
    assert sha256(found.files[WEIGHTS]) == value["best_weights_sha256"]
    assert found.files[CONFIG] == (run / value["best_model"] / CONFIG).read_bytes()
    data = load(folder / "config.yaml").data
    told = ("channels", "mean", "std", "fit")
    assert [getattr(found.data, name) for name in told] == [getattr(data, name) for name in told]
    assert found.data.classes == json.loads(found.files[CONFIG])["num_classes"]
    network_of(found.files, "place")


def test_a_run_that_has_not_ended_has_no_best_network(folder: Path) -> None:
    with pytest.raises(InputError, match="has no best network, because it has not ended"):
        given(str(folder / "half"))


def test_a_damaged_network_is_not_given(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "finished", run)
    weights = run / best_network(LocalStore(run)).weights.key
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(IntegrityError, match="does not match its hash"):
        given(str(run))


def test_a_folder_means_its_two_files(folder: Path, tmp_path: Path) -> None:
    of_run = given(str(folder / "finished"))
    for name, content in of_run.files.items():
        (tmp_path / name).write_bytes(content)
    told = json.loads(of_run.files[CONFIG])
    told["pretrained_cfg"] |= {"interpolation": "bilinear", "crop_mode": "squash", "crop_pct": 1.0}
    (tmp_path / CONFIG).write_text(json.dumps(told))
    found = given(str(tmp_path))
    assert found.run is None
    assert found.files[WEIGHTS] == of_run.files[WEIGHTS]
    assert found.data.classes == of_run.data.classes


def test_a_file_of_weights_means_itself_beside_its_config(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    files = given(str(folder / "finished")).files
    for name, content in files.items():
        (tmp_path / name.replace("model", "mine")).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    for place in (str(tmp_path / "mine.safetensors"), "mine.safetensors"):
        assert given(place).files == files
    with pytest.raises(InputError, match=r"other\.safetensors: no network is here \(no other\.safetensors\)"):
        given(str(tmp_path / "other.safetensors"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache without a network, that holds weights by a name of timm's; their file."""
    return cached(tmp_path / "hub", monkeypatch)


def test_a_name_of_timms_means_the_weights_in_the_cache_fed_as_timm_feeds_them(cache: Path) -> None:
    found = given(PUBLISHED)
    assert found.files[WEIGHTS] == cache.read_bytes()
    assert found.names is None
    assert (found.data.classes, found.data.size, found.data.fit) == (1000, 160, "crop")
    theirs = timm.data.resolve_model_data_config(timm.create_model(PUBLISHED))
    ours = fed(found.data)
    assert {name: ours[name] for name in ("input_size", "interpolation", "mean", "std", "crop_mode")} == {
        name: theirs[name] for name in ("input_size", "interpolation", "mean", "std", "crop_mode")
    }
    assert found.data.resized == int(160 / theirs["crop_pct"])
    network = network_of(found.files, PUBLISHED)
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        alone = timm.create_model(PUBLISHED, pretrained=True).eval()(images)
        torch.testing.assert_close(network(images), alone)
    with pytest.raises(InputError, match="is no folder of this machine"):
        folder_for(found, None)


def test_a_folder_of_that_name_comes_first(cache: Path, folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / PUBLISHED).mkdir()
    files = given(str(folder / "finished")).files
    for name, content in files.items():
        (tmp_path / PUBLISHED / name).write_bytes(content)
    assert given(PUBLISHED).files == files


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tf_efficientnet_b0.ns_jft_in1k", "cannot be had from the Hugging Face hub .* fetch its model.safetensors"),
        ("tf_efficientnet_b0.ns_jft", "timm has no weights for .*; it has .*tf_efficientnet_b0.ns_jft_in1k"),
        ("tf_efficientnet_b00", "no network is here .* or timm's name of a network that it has weights of"),
    ],
)
def test_a_name_that_cannot_be_had_is_refused_with_the_mend(cache: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        given(name)


@pytest.mark.parametrize(
    ("size", "side", "resized"), [("b0", 224, 256), ("b7", 600, 632), ("l2.ns_jft_in1k_475", 475, 507)]
)
def test_published_noisy_students_are_fed_as_they_were_published(size: str, side: int, resized: int) -> None:
    name = f"tf_efficientnet_{size}" + ("" if "." in size else ".ns_jft_in1k")
    data, _ = data_of(of_timm(name), name)
    assert (data.size, data.fit, data.interpolation, data.classes) == (side, "crop", "bicubic", 1000)
    assert data.resized == resized, "size + 32, as the released code crops"


@pytest.mark.parametrize("there", [(), (CONFIG,), (WEIGHTS,)])
def test_a_place_without_a_network_is_refused(tmp_path: Path, there: tuple[str, ...]) -> None:
    for name in there:
        (tmp_path / name).write_bytes(b"{}")
    missing = WEIGHTS if there == (CONFIG,) else CONFIG
    with pytest.raises(InputError, match=rf"no network is here \(no {missing}\), and no run"):
        given(str(tmp_path))
    with pytest.raises(InputError, match="no network is here"):
        given(str(tmp_path / "nowhere"))
