"""The package from Python, where no Ray is needed. With Ray: ``e2e/test_api.py``."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.networks import SMALL, trained
from support.shards import write_as

import ray_ns
from ray_ns.config import Data, Model
from ray_ns.errors import InputError
from ray_ns.models.files import to_files


def test_what_the_package_offers_is_there_and_documented() -> None:
    for name in ray_ns.__all__:
        assert getattr(ray_ns, name) is not None
        assert name.startswith("__") or getattr(ray_ns, name).__doc__
    with pytest.raises(AttributeError, match="train"):
        ray_ns.no_train  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"ray", "torch", "numpy", "pyarrow", "pydantic"}
    code = f"import sys, ray_ns; print(sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_settings_are_refused_as_on_the_command_line(tmp_path: Path) -> None:
    config = {"run": {"dir": tmp_path / "run"}, "data": {"labelled": tmp_path, "pool": tmp_path}}
    with pytest.raises(InputError, match=r"select.treshold: unknown key, did you mean threshold\?"):
        ray_ns.run(config, select={"treshold": 0.5})
    assert not (tmp_path / "run").exists()


def test_labels_of_no_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run has begun here"):
        ray_ns.load_labels(tmp_path)


def test_new_images_are_labelled_without_ray_and_the_table_is_the_file(
    tmp_path: Path, pictures: Callable[..., list[bytes]]
) -> None:
    said = {"labelled": "l", "pool": "p", "classes": 3, "size": 16, "channels": 1, "mean": [0.5], "std": [0.25]}
    data = Data.model_validate(said)
    network, source, output = tmp_path / "network", tmp_path / "source", tmp_path / "labels.parquet"
    network.mkdir()
    for name, content in to_files(trained(Model(name="resnet10t", args=SMALL), data), data, ("a", "b", "c")).items():
        (network / name).write_bytes(content)
    root = write_as("plain", source, pictures(20), 20).root
    table = ray_ns.predict(network, root, label={"slice_rows": 8, "precision": "float32"})
    assert len(table) == 20
    assert set(table["label_name"].to_pylist()) <= {"a", "b", "c"}
    assert sorted(it.name for it in tmp_path.iterdir()) == ["network", "source"]  # nothing stays where nothing is asked
    assert ray_ns.predict(network, root, output, label={"slice_rows": 8, "precision": "float32"}).equals(table)
    assert pq.read_table(output).to_pylist() == table.to_pylist()
    assert ray_ns.load_labels(f"{output}.run", minimum=1.0).num_rows == 0
    with pytest.raises(InputError, match=r"expected a name that ends in|\.csv"):
        ray_ns.predict(network, root, tmp_path / "labels.txt")
