"""What the nodes of a cluster find is said in one line, by what is wrong and what mends it."""

import inspect
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ray_ns.config import Cluster, Config, Label
from ray_ns.engine import nodes, placement
from ray_ns.engine.workers import there
from ray_ns.errors import InputError
from ray_ns.observe import Reporter
from ray_ns.store.objects import LocalStore

MINE = {"python": "3.11", "ray_ns": "0.1.0", "code": "aaaa", "ray": "2.60.0", "torch": "2.13.0", "timm": "1.0.31"}


def answer(**other: Any) -> dict[str, Any]:
    return {"versions": MINE, "scratch": 50 << 30, "reached": True, "store": "", "corpora": {}} | other


def with_versions(**other: str) -> dict[str, Any]:
    return answer(versions={**MINE, **other})


def line(answers: dict[str, Any]) -> str:
    return nodes.in_words(len(answers), nodes.troubles(answers, MINE, "/data/run"))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "10.0.0.2: no answer in 120 s. See 'ray list nodes'"),
        ({"failed": "RuntimeEnvSetupError: no such package"}, "cannot run a task (RuntimeEnvSetupError: no such"),
        (with_versions(ray_ns="", code=""), "10.0.0.2: no ray_ns there. Every node needs what the driver has"),
        (with_versions(ray_ns="", timm="", code=""), "no ray_ns and no timm there"),
        (with_versions(ray_ns="0.0.9", code="bbbb"), "10.0.0.2: ray_ns 0.0.9 there, 0.1.0 here. Every"),
        (with_versions(torch="2.12.0"), "10.0.0.2: torch 2.12.0 there, 2.13.0 here. Every"),
        (with_versions(code="bbbb"), "10.0.0.2: ray_ns 0.1.0 of other code than here. Every"),
        (answer(store="is another folder there"), "/data/run is another folder there. Give a folder that every node"),
        (answer(corpora={"/pool": "no such file"}), "/pool cannot be read there (no such file). Give a folder that"),
    ],
)
def test_what_a_node_lacks_is_named_with_its_mend(found: Any, words: str) -> None:
    said = line({"10.0.0.1": answer(), "10.0.0.2": found})
    assert said.startswith("1 of 2 nodes cannot do this run's work. 10.0.0.2: ")
    assert words in said
    assert "\n" not in said


def test_nodes_with_one_trouble_are_named_together_and_few() -> None:
    answers = {f"10.0.0.{number}": with_versions(ray_ns="", code="") for number in range(1, 9)}
    said = line({**answers, "10.0.0.9": None})
    assert said.startswith(
        "9 of 9 nodes cannot do this run's work. 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4 and 4 more: no ray_ns there."
    )
    assert "10.0.0.9: no answer" in said


def test_nodes_that_can_do_the_work_are_told_of_in_one_line() -> None:
    here = [placement.Node("10.0.0.1", {}, 4, 0, "a"), placement.Node("10.0.0.2", {}, 2, 8, "b")]
    answers = {"10.0.0.1": answer(scratch=7 << 30), "10.0.0.2": answer()}
    assert not nodes.troubles(answers, MINE, "/data/run")
    assert nodes.told(here, answers) == (
        "2 nodes: ray_ns 0.1.0, ray 2.60.0, torch 2.13.0, timm 1.0.31, Python 3.11; 6 CPUs, 8 GPUs; run directory and "
        "images reached from each; scratch space 7 GB at least (10.0.0.1). Nodes that join later are not looked at."
    )


def test_nodes_without_work_are_not_asked_and_those_with_one_address_can_be_told_apart() -> None:
    found = [placement.Node("10.0.0.1", {}, 0, 0, "head"), placement.Node("10.0.0.2", {}, 2, 0, "b" * 9)]
    assert [it.id for it in nodes.at_work(found, "other")] == ["b" * 9]
    assert [it.id for it in nodes.at_work(found, "head")] == ["head", "b" * 9]
    found.append(placement.Node("10.0.0.2", {}, 2, 0, "c" * 9))
    assert list(nodes.names_of(found).values()) == ["10.0.0.1", "10.0.0.2 (bbbbbbbb)", "10.0.0.2 (cccccccc)"]


def test_a_node_that_sees_the_run_directory_answers_there_and_another_leaves_nothing(tmp_path: Path) -> None:
    here, other = LocalStore(tmp_path / "here"), LocalStore(tmp_path / "other")
    here.put("driver/seen-1", b"marker")
    found = there.look("driver/seen-1", b"marker", "driver/seen-1-0", pickle.dumps((here, [])))
    assert (found["store"], found["reached"], here.get("driver/seen-1-0")) == ("", True, b"marker")
    assert found["versions"] == there.versions()
    assert all(found["versions"].values())
    assert found["scratch"] > 0
    found = there.look("driver/seen-1", b"marker", "driver/seen-1-0", pickle.dumps((other, [])))
    assert found["store"].startswith("is another folder there")
    assert not other.root.exists()


def test_a_node_without_the_package_can_say_so(tmp_path: Path) -> None:
    """Its source runs by itself, in a Python that has nothing of ours."""
    code = f"{inspect.getsource(there)}\nprint(look('k', b'm', 'a', b'')['versions'])"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'ray_ns': ''" in done.stdout


def config(**cluster: Any) -> Config:
    return Config.model_construct(_fields_set=set(), cluster=Cluster(**cluster), label=Label())


def test_every_kind_of_worker_fits_one_node_and_not_only_their_sum() -> None:
    two = [placement.Node("10.0.0.1", {}, 2, 0, "a"), placement.Node("10.0.0.2", {}, 2, 0, "b")]
    assert nodes.fits_none(config(train_threads=2), two) == ""
    assert nodes.fits_none(config(train_threads=3), two) == "no node holds one training worker: 3 CPUs."
    on = config(train_threads=2, train_on={"ray-ns/gpu": "true"})
    assert nodes.fits_none(on, two) == "no node holds one training worker: 2 CPUs on nodes with ray-ns/gpu=true."
    gpu = [*two, placement.Node("10.0.0.3", {"ray-ns/gpu": "true"}, 2, 0.5, "c")]
    assert nodes.fits_none(on, gpu) == ""
    assert nodes.fits_none(config(train_gpus=1), gpu) == "no node holds one training worker: 1 CPU and 1 GPU."


def test_a_worker_that_no_node_holds_is_refused_unless_an_autoscaler_may_bring_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small, large = placement.Node("10.0.0.1", {}, 2, 0, "a"), placement.Node("10.0.0.2", {}, 8, 0, "b")
    monkeypatch.setattr(nodes, "STARTING_SECONDS", 0.0)
    monkeypatch.setattr(nodes, "alive", lambda: [small])
    with pytest.raises(
        InputError, match=r"no node holds one training worker: 4 CPUs\. Lower .* \(there are 1 x 2 CPUs"
    ):
        nodes.check_shapes(config(train_threads=4), Reporter("plain"), grows=False)
    nodes.check_shapes(config(train_threads=4), Reporter("plain"), grows=True)
    assert "warning: no node holds one training worker: 4 CPUs. The autoscaler may bring one" in capsys.readouterr().err
    seen = iter([[small], [small, large]])
    monkeypatch.setattr(nodes, "STARTING_SECONDS", 60.0)
    monkeypatch.setattr(nodes, "alive", lambda: next(seen))
    nodes.check_shapes(config(train_threads=4), Reporter("plain"), grows=False)
    assert "Waiting 60 s for nodes that are starting" in capsys.readouterr().err
