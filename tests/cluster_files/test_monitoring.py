"""Rules, their own tests, the dashboard and the PodMonitor: they name only what there is."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from support.manifests import CLUSTER, of_kind, pods, rendered
from support.monitoring import MONITORING, Expression, of_dashboard, of_rules, program, rules, write_groups

from ray_ns.measures import MEASURES, Measure

# Ray's own metrics that are used, with their labels: all from the agent of each node (port metrics). The first one
# comes from its raylet, the others from the agent itself.
OF_RAY = {
    "ray_object_store_memory": {"Location", "NodeAddress", "SessionName"},
    "ray_node_cpu_utilization": {"NodeAddress"},
    "ray_node_mem_used": {"NodeAddress"},
    "ray_node_mem_total": {"NodeAddress"},
}
RECORDS = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
EVERY = [*of_rules(), *of_dashboard()]
every = pytest.mark.parametrize("expression", EVERY, ids=lambda it: it.place)


def exported(measure: Measure) -> set[str]:
    """The names under which Ray exports a measure."""
    name = f"ray_{measure.name}"
    if measure.kind == "histogram":
        return {f"{name}_{suffix}" for suffix in ("bucket", "sum", "count")}
    return {f"{name}_total" if measure.kind == "counter" else name}


LABELS = {name: {"run", *measure.labels} for measure in MEASURES.values() for name in exported(measure)} | OF_RAY


def labels_of(name: str) -> set[str]:
    """The labels of a metric, or those that a record keeps."""
    if name not in RECORDS:
        return LABELS[name] | ({"le"} if name.endswith("_bucket") else set())
    return {it.strip() for names in re.findall(r"\bby \(([^)]*)\)", RECORDS[name]) for it in names.split(",")}


@every
def test_an_expression_names_only_metrics_that_exist(expression: Expression) -> None:
    assert expression.metrics
    assert expression.metrics - {*LABELS} - {*RECORDS} == set()


@every
def test_an_expression_uses_only_labels_that_its_metrics_have(expression: Expression) -> None:
    for name in expression.metrics:
        assert expression.labels & labels_of(name)
    assert expression.labels - set.union(*map(labels_of, expression.metrics)) == set()


def test_what_the_checks_above_look_at() -> None:
    text = 'sum by (run, le) (rate(ray_ns_x_bucket{stage="ray_a", b=~"c"}[5m])) unless on (d) run:ray_ns_y:max'
    found = Expression("", text, ("e",))
    assert found.metrics == {"ray_ns_x_bucket", "run:ray_ns_y:max"}
    assert found.labels == {"run", "le", "stage", "b", "d", "e"}


def test_every_measure_is_in_the_dashboard() -> None:
    shown = {name for it in of_dashboard() for name in it.metrics}
    assert [name for name, measure in MEASURES.items() if not exported(measure) & shown] == []


def test_every_record_is_used_and_every_alert_reads_records_alone() -> None:
    alerts = [it for it in of_rules() if it.place not in RECORDS]
    assert {name for it in alerts for name in it.metrics} == {*RECORDS}


def test_every_alert_says_how_bad_it_is_what_it_is_and_where_its_mend_is() -> None:
    headings = re.findall(r"^#+ (\w+)$", (CLUSTER / "README.md").read_text(), re.MULTILINE)
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in {"page", "warning"}
            assert rule["annotations"]["summary"]
            assert rule["annotations"]["runbook"] == f"cluster/README.md#{rule['alert'].lower()}"
            assert rule["alert"] in headings


def test_promtool_accepts_the_rules_and_each_alert_fires_and_does_not(tmp_path: Path) -> None:
    promtool = program("promtool")
    write_groups(tmp_path / "groups.yaml")
    (tmp_path / "tests.yaml").write_text((MONITORING / "rules.test.yaml").read_text())
    tested = [
        test for it in yaml.safe_load((tmp_path / "tests.yaml").read_text())["tests"] for test in it["alert_rule_test"]
    ]
    assert {it["alertname"] for it in tested if it["exp_alerts"]} == {it["alert"] for it in rules() if "alert" in it}
    for words in (["check", "rules", "groups.yaml"], ["test", "rules", "tests.yaml"]):
        done = subprocess.run([promtool, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_monitor_finds_the_pods_of_every_overlay_and_their_ports() -> None:
    (monitor,) = of_kind(rendered(MONITORING), "PodMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    ports = {it["port"] for it in monitor["spec"]["podMetricsEndpoints"]}
    assert ports == {"metrics", "as-metrics", "dash-metrics"}
    for overlay in (CLUSTER / "kuberay/overlays").iterdir():
        offered = set()
        for pod in pods(rendered(overlay)):
            if pod.name == "submitter":
                continue
            assert wanted.items() <= pod.labels.items()
            offered |= {port["name"] for it in pod.containers for port in it.get("ports", ())}
        assert ports <= offered


def test_the_dashboard_is_where_grafana_looks_for_it() -> None:
    (config,) = of_kind(rendered(MONITORING), "ConfigMap")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config["data"] == {"dashboard.json": (MONITORING / "dashboard.json").read_text()}
