"""``precision: auto`` is decided once per run, by the hardware that computes, and holds for the run's whole life."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_run import write_tiny

from ray_ns.config import Cluster, Config, Settings
from ray_ns.engine import precision
from ray_ns.train.precision import fast_precision

ALL = ("label", "teacher", "student")
PROCESSORS = {
    "Zen 4, Sapphire Rapids": ({"avx512_bf16": True, "avx2": True}, "bfloat16"),
    "AMX": ({"amx_bf16": True}, "bfloat16"),
    "ARM with it": ({"neon": True, "bf16": True}, "bfloat16"),
    "AVX2 alone": ({"avx2": True, "avx512_bf16": False}, "float32"),
    "AVX-512 without it": ({"avx512_f": True}, "float32"),
    "ARM without it": ({"neon": True, "bf16": False}, "float32"),
}


@pytest.fixture
def auto(config: Config) -> Config:
    """Every precision at its default."""
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update={"precision": "auto"}) for name in ALL}
    )


def has(monkeypatch: pytest.MonkeyPatch, processor: dict[str, bool], gpu: bool | None = None) -> None:
    """The process runs on such a processor, and sees a GPU with (True) or without (False) bfloat16, or none."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu)


@pytest.mark.parametrize(("processor", "wanted"), PROCESSORS.values(), ids=PROCESSORS)
def test_a_processor_computes_in_what_it_has(
    monkeypatch: pytest.MonkeyPatch, processor: dict[str, bool], wanted: str
) -> None:
    has(monkeypatch, processor)
    assert fast_precision(gpu=False) == wanted


@pytest.mark.parametrize(("gpu", "wanted"), [(True, "bfloat16"), (False, "float32"), (None, "bfloat16")])
def test_a_gpu_decides_for_itself(monkeypatch: pytest.MonkeyPatch, gpu: bool | None, wanted: str) -> None:
    has(monkeypatch, {}, gpu)
    assert fast_precision(gpu=True) == wanted


def test_each_setting_is_decided_by_what_computes_it(monkeypatch: pytest.MonkeyPatch, auto: Config) -> None:
    has(monkeypatch, {}, gpu=True)
    found = auto.model_copy(update={"label": auto.label.model_copy(update={"gpus_per_actor": 0.5})})
    decided, words = precision.decide(found, None)
    assert {name: getattr(decided, name).precision for name in ALL} == {
        "label": "bfloat16",
        "teacher": "float32",
        "student": "float32",
    }
    assert (
        precision.in_words(words, decided) == "label.precision: bfloat16; teacher.precision, student.precision: float32"
    )


@pytest.mark.parametrize("held", ["float32", "bfloat16"])
def test_a_run_keeps_what_was_decided_when_it_began(monkeypatch: pytest.MonkeyPatch, auto: Config, held: str) -> None:
    has(monkeypatch, {"avx512_bf16": held == "bfloat16"})
    begun = Settings().of(precision.decide(auto, None)[0])
    has(monkeypatch, {"avx512_bf16": held != "bfloat16"})  # resumed on another machine
    again, _ = precision.decide(auto, begun)
    assert Settings().differences(begun, again) == []
    assert again.label.precision == held


def test_another_precision_than_the_recorded_one_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, auto: Config
) -> None:
    has(monkeypatch, {"avx512_bf16": True})
    begun = Settings().of(precision.decide(auto, None)[0])
    asked = auto.model_copy(update={"label": auto.label.model_copy(update={"precision": "float32"})})
    again, _ = precision.decide(asked, begun)
    assert Settings().differences(begun, again) == ["label.precision: 'bfloat16' -> 'float32'"]


def test_every_recipe_of_a_list_is_decided(monkeypatch: pytest.MonkeyPatch, auto: Config) -> None:
    has(monkeypatch, {})
    listed = auto.model_copy(update={"student": [auto.student, auto.student]})
    found, words = precision.decide(listed, {"student": [{"precision": "bfloat16"}]})
    assert [student.precision for student in found.students] == ["bfloat16", "float32"]
    assert list(words) == ["label.precision", "teacher.precision", "student.0.precision", "student.1.precision"]


@pytest.mark.parametrize("recorded", [None, {}, {"label": None, "student": {"precision": 3}}, {"student": []}])
def test_nothing_undecided_reaches_a_stage(
    monkeypatch: pytest.MonkeyPatch, auto: Config, recorded: dict[str, Any] | None
) -> None:
    has(monkeypatch, {})
    if recorded and isinstance(recorded.get("student"), dict):
        recorded = {"student": recorded["student"] | {"precision": "float32"}}
    found, _ = precision.decide(auto, recorded)
    assert "auto" not in {getattr(found, name).precision for name in ALL}


def test_what_is_decided_already_stays(config: Config) -> None:
    assert precision.decide(config, None) == (config, {})


def test_check_says_what_auto_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray_ns.engine.check import check

    has(monkeypatch, {"avx512_bf16": False})
    tiny = write_tiny(tmp_path)
    first = next(check(str(tiny), ["label.precision=auto", "teacher.precision=bfloat16", "student.precision=bfloat16"]))
    assert first.line == "auto is here label.precision: float32"


@pytest.mark.parametrize("named_by", ["cluster.address", "RAY_ADDRESS"])
def test_of_a_cluster_it_is_said_that_the_drivers_machine_decided(
    monkeypatch: pytest.MonkeyPatch, auto: Config, named_by: str
) -> None:
    has(monkeypatch, {"avx512_bf16": True})
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found, words = precision.decide(auto, None)
    assert "workers" not in precision.in_words(words, found)
    if named_by == "RAY_ADDRESS":
        monkeypatch.setenv(named_by, "10.0.0.1:6379")
    else:
        found = found.model_copy(update={"cluster": Cluster(address="10.0.0.1:6379")})
    assert "This machine decided, not the cluster's workers" in precision.in_words(words, found)
