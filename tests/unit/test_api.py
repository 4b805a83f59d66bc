"""The package from Python, where no Ray is needed. With Ray: ``e2e/test_api.py``."""

import subprocess
import sys
from pathlib import Path

import pytest

import ray_ns
from ray_ns.errors import InputError


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
