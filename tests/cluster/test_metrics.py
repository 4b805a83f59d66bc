"""A Prometheus that scrapes a run on a cluster has a series of every expression of the rules and the dashboard.

What seldom happens is made to happen: a training worker is killed, two images are unreadable, and a folder lies where
the training's progress belongs, so requests to it fail. Nothing spills: Ray says so with a 0, which is a series.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.monitoring import Expression, Prometheus, of_dashboard, of_rules, program, prometheus, rules
from support.nodes import Nodes, Started, cluster
from support.tiny_run import faulty, write_tiny

from ray_ns.measures import MEASURES

pytestmark = pytest.mark.cluster
WORDS = ("teacher.steps=150", "student.steps=100", "label.layout=tasks", "cluster.checkpoint_steps=50")
OF_RAY = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId"}
ENDS = ("total", "bucket", "sum", "count")
OF_PROMETHEUS = {"__name__", "instance", "job", "le"}


@dataclass
class Watched:
    """A run that has ended. ``seen``: the places of the expressions that had a series at some time."""

    nodes: Nodes
    prometheus: Prometheus
    run: Path
    seen: set[str]

    def total(self, text: str) -> float:
        """The sum of what an expression gives now."""
        return sum(value for _, value in self.prometheus.series(text))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    program("prometheus")
    folder = tmp_path_factory.mktemp("metrics")
    config, run = write_tiny(folder), folder / "run"
    fault = faulty(f"die:rounds/0/train/checkpoints/.*/000000050-.*json:{folder}/killed")
    # Three times as often as is usual, so that what is short is seen.
    often = {"RAY_metrics_report_interval_ms": "3000"}
    with (
        cluster(folder / "nodes", 1, cpus=3, env={**fault, **often}) as nodes,
        prometheus(nodes, folder / "prometheus") as found,
    ):
        driver = nodes.start(sys.executable, "-m", "ray_ns", "run", str(config), *WORDS, cwd=folder)
        yield Watched(nodes, found, run, watch(driver, run, found))


def watch(driver: Started, run: Path, found: Prometheus) -> set[str]:
    """Ask for every expression that has had no series yet, until the run has ended and the last export is there."""
    seen: set[str] = set()
    left = [it for it in (*of_dashboard(), *of_rules()) if not is_alert(it)]
    ended = 0.0
    until = time.monotonic() + 400
    while not ended or time.monotonic() - ended < 5:
        assert time.monotonic() < until, "the run does not end"
        if (run / "run.json").exists() and not run.joinpath("rounds/0/train/progress.json").exists():
            run.joinpath("rounds/0/train/progress.json").mkdir(parents=True)
        seen |= {it.place for it in left if found.series(it.text)}
        left = [it for it in left if it.place not in seen]
        ended = ended or (time.monotonic() if not driver.runs() else 0.0)
        time.sleep(1)
    assert driver.end(10) == 0, driver.text()[-6000:]
    return seen


def is_alert(expression: Expression) -> bool:
    return any(rule.get("alert") == expression.place for rule in rules())


def test_every_expression_has_had_a_series(watched: Watched) -> None:
    wanted = {it.place for it in (*of_dashboard(), *of_rules()) if not is_alert(it)}
    assert wanted - watched.seen == set()


def test_prometheus_could_evaluate_every_rule(watched: Watched) -> None:
    found = [rule for group in watched.prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(found) == len(rules())
    assert [it for it in found if it["health"] != "ok"] == []


def test_the_figures_are_those_of_the_run(watched: Watched) -> None:
    labels = json.loads((watched.run / "rounds/1/label/commit.json").read_text())["summary"]
    left_out = sum(labels["left_out"].values())
    assert labels["quarantine"] == {"empty": 1, "truncated": 1}
    assert watched.total("ray_ns_images_labelled_total{stage='label'}") == labels["rows"] - left_out - 2
    for reason, count in labels["quarantine"].items():
        assert watched.total(f"ray_ns_images_quarantined_total{{stage='label',reason='{reason}'}}") == count
    assert watched.total("ray_ns_retries_total{what='training'}") == 1
    assert watched.total("ray_ns_store_requests_total{outcome='failed'}") > 0
    assert 200 <= watched.total("ray_ns_train_steps_total") <= 250  # the killed worker made 50, told or not yet
    assert watched.total("ray_ns_commits_total{stage='report'}") == 1
    assert [value for _, value in watched.prometheus.series("last_over_time(run:ray_ns_driver_up:max[5m])")] == [0.0]


def test_labels_are_those_of_the_table_and_no_secret_is_among_them(watched: Watched) -> None:
    found: list[dict[str, Any]] = watched.prometheus.get("series", **{"match[]": '{__name__=~"ray_ns_.+"}'})
    of_name = {f"ray_{name}": {"run", *measure.labels} for name, measure in MEASURES.items()}
    assert {it["run"].rpartition("-")[0] for it in found} == {"run"}
    for it in found:
        (name,) = (one for one in of_name if it["__name__"] in {one, *(f"{one}_{end}" for end in ENDS)})
        ours = {label for label in it if not label.startswith("otel_")} - OF_RAY - OF_PROMETHEUS
        assert ours <= of_name[name]
        assert of_name[name] - ours <= {"stage"}  # outside of stages it is empty, and Prometheus drops what is empty
    assert watched.nodes.token
    assert watched.nodes.token not in json.dumps(watched.prometheus.get("series", **{"match[]": '{__name__=~".+"}'}))
