"""The rules and the dashboard of ``cluster/monitoring``, and a Prometheus that scrapes a cluster on this machine."""

import contextlib
import json
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.nodes import Nodes

MONITORING = Path(__file__).parents[2] / "cluster/monitoring"
ADDRESS = "10.77.0.2:9090"  # of Prometheus, in the namespace of the nodes
_WORDS = re.compile(r'"[^"]*"|[a-zA-Z_:][a-zA-Z0-9_:]*')


@dataclass(frozen=True)
class Expression:
    """One query: of a rule or of a panel. ``shown``: the labels that its text names (a summary, a legend)."""

    place: str
    text: str
    shown: tuple[str, ...] = ()

    @property
    def metrics(self) -> set[str]:
        """The metrics and records that it reads: the only words of a query with ``ray_`` in them."""
        return {word for word in _WORDS.findall(self.text) if "ray_" in word and word[0] != '"'}

    @property
    def labels(self) -> set[str]:
        """The labels that it matches, sums by or shows."""
        by = re.findall(r"\b(?:by|on) \(([^)]*)\)", self.text)
        matched = re.findall(r"[{,]\s*(\w+)\s*[=!]~?", self.text)
        return {name.strip() for names in by for name in names.split(",")} | {*matched, *self.shown}


def rules() -> list[dict[str, Any]]:
    """All rules, in their order."""
    return [rule for group in _groups() for rule in group["rules"]]


def _groups() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]["groups"]
    return found


def write_groups(path: Path) -> None:
    """The groups of the PrometheusRule as a file that Prometheus reads."""
    path.write_text(yaml.safe_dump({"groups": _groups()}, sort_keys=False))


def of_rules() -> list[Expression]:
    """The expressions of records and alerts."""
    return [
        Expression(
            rule.get("alert") or rule["record"],
            rule["expr"],
            tuple(re.findall(r"\$labels\.(\w+)", str(rule.get("annotations")))),
        )
        for rule in rules()
    ]


def of_dashboard() -> list[Expression]:
    """The expressions of the dashboard, over the last minute and all runs."""
    board = json.loads((MONITORING / "dashboard.json").read_text())
    found = []
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"].replace("$__rate_interval", "1m").replace("$run", ".+")
            shown = tuple(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            found.append(Expression(f"{panel['title']}: {target['legendFormat']}", text, shown))
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            found.append(Expression(f"${variable['name']}", f"max by ({label}) ({metric})"))
    return found


def program(name: str) -> str:
    """Where Debian's ``prometheus`` or ``promtool`` is. Skips the test where it is not."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on this machine; Debian's package prometheus has it")
    return found


class Prometheus:
    """A running Prometheus that has the rules."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def get(self, path: str, **asked: str) -> Any:
        """What its API answers."""
        query = f"?{urllib.parse.urlencode(asked)}" if asked else ""
        answer = json.loads(self._nodes.http(f"/api/v1/{path}{query}", f"http://{ADDRESS}", token=False))
        assert answer["status"] == "success", answer
        return answer["data"]

    def series(self, text: str) -> list[tuple[Mapping[str, str], float]]:
        """The series that an expression has now: labels and value."""
        return [(it["metric"], float(it["value"][1])) for it in self.get("query", query=text)["result"]]


@contextlib.contextmanager
def prometheus(nodes: Nodes, folder: Path) -> Iterator[Prometheus]:
    """Scrapes what Ray says that there is to scrape, each second, and evaluates the rules as often."""
    folder.mkdir()
    write_groups(folder / "groups.yaml")
    found = nodes.nodes[0].folder / "prom_metrics_service_discovery.json"
    settings = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "groups.yaml")],
        "scrape_configs": [{"job_name": "ray", "file_sd_configs": [{"files": [str(found)], "refresh_interval": "1s"}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
    command = [program("prometheus"), f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
    with nodes.inside(), (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={ADDRESS}", "--log.level=warn"], stderr=log)
    try:
        yield Prometheus(nodes)
    finally:
        process.terminate()
        process.wait()
