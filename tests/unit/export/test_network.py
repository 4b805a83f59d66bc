"""Which network a place means: a run's best one, or that of a folder."""

import json
import shutil
from pathlib import Path

import pytest
from support.format_1 import unpack

from ray_ns.artifacts.report import best_network, report_of
from ray_ns.config.read import load
from ray_ns.errors import InputError, IntegrityError
from ray_ns.export.network import given
from ray_ns.models.files import CONFIG, WEIGHTS
from ray_ns.models.given import network_of
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


@pytest.mark.parametrize("there", [(), (CONFIG,), (WEIGHTS,)])
def test_a_place_without_a_network_is_refused(tmp_path: Path, there: tuple[str, ...]) -> None:
    for name in there:
        (tmp_path / name).write_bytes(b"{}")
    missing = WEIGHTS if there == (CONFIG,) else CONFIG
    with pytest.raises(InputError, match=rf"no network is here \(no {missing}\), and no run"):
        given(str(tmp_path))
    with pytest.raises(InputError, match="no network is here"):
        given(str(tmp_path / "nowhere"))
