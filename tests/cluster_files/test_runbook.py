"""The runbook: a heading for each alert and each exit code, and its commands and examples are true."""

import re
import shutil
import subprocess
from pathlib import Path

import yaml
from support.manifests import CLUSTER, ROOT, of_kind, pods, rendered, schema_errors
from support.operator_rules import operator_errors
from support.pod_rules import PLACEHOLDER, pod_errors

from ray_ns.cli.program import EXIT_CODES
from ray_ns.config import Config

TEXT = (CLUSTER / "README.md").read_text()
HEADINGS = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
ALERTS = {
    *("NoProgress", "DriverGone", "GpuStarved", "InputBound", "QuarantineHigh", "StoreErrors"),
    *("RestartLoop", "CheckpointStall", "ObjectStoreSpilling"),
}


def blocks(kind: str = "") -> list[str]:
    """The fenced blocks of a kind."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == kind]


def test_every_alert_has_its_heading() -> None:
    rules = [path.read_text() for path in sorted((CLUSTER / "monitoring").rglob("*.yaml"))]
    found = {name for text in rules for name in re.findall(r"^\s*-? *alert: *['\"]?(\w+)", text, re.MULTILINE)}
    assert ALERTS | found <= set(HEADINGS)
    assert not found or found == ALERTS  # no heading tells of an alert that there is not


def test_every_exit_code_has_its_heading() -> None:
    table = re.findall(r"^\| ([\d, ]+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    codes = {int(it) for text in (*table, EXIT_CODES) for it in re.findall(r"\b\d+\b", text)}
    told = {int(it) for heading in HEADINGS if heading.startswith("Exit ") for it in re.findall(r"\d+", heading)}
    assert {0, 2, 3, 4, 137} <= codes
    assert told == codes


def test_the_kustomization_that_it_shows_is_good(tmp_path: Path) -> None:
    shutil.copytree(CLUSTER / "kuberay", tmp_path / "cluster/kuberay")
    mine = tmp_path / "my-run"
    mine.mkdir()
    (text,) = (it for it in blocks("yaml") if "namePrefix" in it)
    (mine / "kustomization.yaml").write_text(text)
    (mine / "run.yaml").write_text("run: {dir: s3://my-bucket/runs/b7}\n")
    objects = rendered(mine)
    assert schema_errors(objects) + operator_errors(objects) + pod_errors(objects) == []
    assert [it["metadata"]["name"] for it in of_kind(objects, "RayJob")] == ["b7-ray-ns"]
    assert {it["metadata"]["namespace"] for it in objects} == {"vision"}
    assert not any(PLACEHOLDER in it["image"] for pod in pods(objects) for it in pod.containers)
    assert any(it["data"].get("run.yaml", "").startswith("run:") for it in of_kind(objects, "ConfigMap"))


def test_the_environment_that_it_shows_reaches_the_pods(tmp_path: Path) -> None:
    shutil.copytree(CLUSTER / "kuberay", tmp_path / "kuberay")
    mine = tmp_path / "kuberay/mine"
    mine.mkdir()
    (text,) = (it for it in blocks() if it.startswith("configMapGenerator"))
    (mine / "kustomization.yaml").write_text("resources: [../overlays/gpu]\n" + text)
    objects = rendered(mine)
    assert pod_errors(objects) == []
    (found,) = (it["data"] for it in of_kind(objects, "ConfigMap") if "TMPDIR" in it["data"])
    assert (found["AWS_REGION"], found["AWS_ENDPOINT_URL"]) == ("eu-west-1", "https://s3.example.com")


def test_the_names_in_its_commands_are_those_of_the_manifests() -> None:
    objects = rendered(CLUSTER / "kuberay/overlays/gpu")
    (job,) = of_kind(objects, "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    assert f"create secret generic {spec['authOptions']['secretName']} --from-file=auth_token=" in TEXT
    keys = [it["valueFrom"]["secretKeyRef"] for pod in pods(objects) for it in _env(pod.spec) if "valueFrom" in it]
    for key in keys:
        assert f"create secret generic {key['name']} " in TEXT
        assert f"--from-file={key['key']}=" in TEXT
    assert f"svc/b7-{job['metadata']['name']}-head-svc" in TEXT
    (cluster,) = of_kind(rendered(CLUSTER / "kuberay/raycluster"), "RayCluster")
    assert f"svc/{cluster['metadata']['name']}-head-svc" in TEXT


def _env(spec: dict) -> list[dict]:
    return spec["containers"][0].get("env", [])


def test_settings_that_it_names_exist() -> None:
    whole = {name: field.annotation for name, field in Config.model_fields.items()}
    for section, name in re.findall(r"`(run|data|label|select|cluster)\.(?!yaml)([a-z_]+)[`:=]", TEXT):
        assert name in whole[section].model_fields, f"{section}.{name}"


def test_commands_can_be_pasted() -> None:
    commands = [it for it in blocks() if not it.startswith(("Dockerfile ", "configMapGenerator"))]
    assert len(commands) > 5
    for block in commands:
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert done.returncode == 0, block + done.stderr


def test_yaml_that_it_shows_is_yaml() -> None:
    assert blocks("yaml")
    for block in blocks("yaml"):
        assert isinstance(yaml.safe_load(block), dict)
