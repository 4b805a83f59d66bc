"""Opening a run writes down where its corpora lie, once, and in no record."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiny_run import write_tiny

from ray_ns.engine.check import check
from ray_ns.engine.opening import drive
from ray_ns.errors import InputError
from ray_ns.seals import seal
from ray_ns.store import layout
from ray_ns.store.objects import LocalStore
from ray_ns.store.verify import verify


def test_a_run_knows_where_its_corpora_lie_and_hears_of_a_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_tiny(tmp_path)
    words, places = [f"run.dir={tmp_path / 'run'}"], tmp_path / "run/places.json"
    with drive(str(config), words, "plain"):
        pass
    names = ("labelled", "validation", "test", "pool")
    assert json.loads(places.read_text()) == {name: str(tmp_path / "data" / name) for name in names}
    written = places.stat().st_mtime_ns
    with drive(str(config), words, "plain"):
        pass
    assert places.stat().st_mtime_ns == written, "nothing is written twice"
    shutil.move(tmp_path / "data/pool", tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    with drive(str(config), [*words, "pool=moved"], "plain"):
        pass
    assert json.loads(places.read_text())["pool"] == str(tmp_path / "moved"), "absolute, for another folder"
    places.write_text("rot")
    assert not [fault for _, fault in verify(LocalStore(tmp_path / "run")) if fault]


def test_a_run_is_opened_without_torch_which_a_finished_one_does_not_need() -> None:
    code = "import sys, ray_ns.cli.run, ray_ns.engine.turns; print({'torch', 'timm', 'ray'} & {*sys.modules})"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said == "set()\n"


def test_a_run_that_began_with_a_warm_up_of_all_its_steps_goes_on(tmp_path: Path) -> None:
    config, words = write_tiny(tmp_path), [f"run.dir={tmp_path / 'run'}"]
    with drive(str(config), words, "plain"):
        pass
    store = LocalStore(tmp_path / "run")
    begun = layout.record(store)
    assert begun is not None
    begun["config"]["student"]["optimizer"]["warmup_steps"] = 30  # as an earlier version let it
    store.put(layout.RUN, seal(begun))
    long = "student.optimizer.warmup_steps=30"
    with drive(str(config), [*words, long], "plain"):
        pass
    assert [it.what for it in check(str(config), [*words, long])][-1] == "in all"
    with pytest.raises(InputError, match=r"student\.optimizer\.warmup_steps = 30"):
        list(check(str(config), [f"run.dir={tmp_path / 'new'}", long]))
