"""The table of measures, and what a call does with and without a sink."""

import os
import re
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.measured import Measured, measured

from ray_ns import measures


@pytest.fixture
def sink() -> Iterator[Measured]:
    with measured() as found:
        yield found


def test_what_is_measured_goes_to_the_sink(sink: Measured) -> None:
    with measures.during("label"):
        measures.count("ns_images_labelled", 64)
        measures.count("ns_images_quarantined", 2, reason="empty")
        measures.timed("ns_store_seconds", 0.25, verb="get")
        measures.level("ns_stage_done", 3, stage="train")
    assert sink.values == [
        ("ns_images_labelled", 64, {"stage": "label"}),
        ("ns_images_quarantined", 2, {"reason": "empty", "stage": "label"}),
        ("ns_store_seconds", 0.25, {"verb": "get"}),
        ("ns_stage_done", 3, {"stage": "train"}),
    ]


def test_a_stage_ends_with_its_block(sink: Measured) -> None:
    with measures.during("label"):
        with measures.during("label/counts"):
            measures.count("ns_commits")
        measures.count("ns_commits")
    measures.count("ns_commits")
    assert [labels["stage"] for _, _, labels in sink.values] == ["label/counts", "label", ""]


def test_nothing_is_not_counted(sink: Measured) -> None:
    measures.count("ns_images_labelled", 0)
    assert sink.values == []


@pytest.mark.parametrize("wanted", [True, False], ids=["with a sink", "without one"])
@pytest.mark.parametrize(
    ("function", "name", "labels"),
    [
        (measures.count, "ns_images_labeled", {}),
        (measures.count, "ns_forward_seconds", {}),
        (measures.timed, "ns_images_labelled", {}),
        (measures.level, "ns_train_steps", {}),
        (measures.count, "ns_images_labelled", {"shard": "1"}),
        (measures.count, "ns_images_quarantined", {}),
        (measures.count, "ns_retries", {"stage": "train"}),
        (measures.level, "ns_top1", {}),
    ],
)
def test_other_names_and_labels_are_refused(wanted: bool, function: Any, name: str, labels: dict[str, str]) -> None:
    with measured() if wanted else nullcontext(), pytest.raises(AssertionError, match=name):
        function(name, 1, **labels)


def test_a_counter_never_falls() -> None:
    with pytest.raises(AssertionError, match="-1"):
        measures.count("ns_commits", -1)


def test_the_table() -> None:
    for name, measure in measures.MEASURES.items():
        assert name == measure.name
        assert name.startswith("ns_")
        assert not (measure.kind == "counter" and name.endswith("_total"))  # Prometheus adds it
        assert (measure.kind == "histogram") == bool(measure.buckets)
        assert all(low < high for low, high in pairwise(measure.buckets))
        assert {*measure.labels} <= {"stage", "reason", "outcome", "what", "verb", "corpus"}


def test_the_page_of_metrics_has_them_all() -> None:
    page = (Path(__file__).parents[2] / "docs/METRICS.md").read_text()
    rows = re.findall(r"^\| `ray_(ns_\w+)` \| (\w+) \| run(.*?) \| (.*) \|$", page, re.MULTILINE)
    assert rows == [
        (
            f"{name}_total" if measure.kind == "counter" else name,
            "gauge" if measure.kind == "level" else measure.kind,
            "".join(f", {label}" for label in measure.labels),
            measure.description,
        )
        for name, measure in measures.MEASURES.items()
    ]


def test_a_forked_process_has_no_sink(sink: Measured) -> None:
    child = os.fork()
    if not child:
        os._exit(measures.used())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert measures.used()
