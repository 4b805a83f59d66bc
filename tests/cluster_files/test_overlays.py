"""The overlays of ``cluster/kuberay``: good by schema and rules, and what they say of ray_ns is true."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from support.manifests import CLUSTER, ROOT, Objects, clusters, of_kind, pods, rendered, schema_errors
from support.operator_rules import operator_errors
from support.pod_rules import PLACEHOLDER, image, pod_errors

from ray_ns.cli import app
from ray_ns.config.read import load
from ray_ns.engine.placement import Node, held_by_all, shapes

KUBERAY = CLUSTER / "kuberay"
OVERLAYS = [*sorted(it for it in (KUBERAY / "overlays").iterdir() if it.is_dir()), KUBERAY / "raycluster"]
DIGEST = "sha256:" + "0" * 64

each = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda it: it.name)


def config_of(objects: Objects, folder: Path) -> Path:
    """The run.yaml that the pods get, as a file."""
    text = next(it["data"]["run.yaml"] for it in of_kind(objects, "ConfigMap") if "run.yaml" in it["data"])
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def commands(objects: Objects) -> Iterator[list[str]]:
    """The words of every command of ray-ns: of drivers, and of containers before them."""
    for job in of_kind(objects, "RayJob"):
        shell, script, *words = shlex.split(job["spec"]["entrypoint"])
        assert (shell, script) == ("bash", "/etc/ray-ns/driver.sh")
        yield words
    for pod in pods(objects):
        yield from (it["command"] for it in pod.spec.get("initContainers", []) if it["command"][0] == "ray-ns")


@each
def test_an_overlay_is_good(overlay: Path) -> None:
    objects = rendered(overlay)
    assert schema_errors(objects) == []
    assert operator_errors(objects) == []
    assert pod_errors(objects) == []


def test_there_are_the_overlays_that_are_told_of() -> None:
    assert [it.name for it in OVERLAYS] == ["dev-cpu", "gpu", "gpu-spot", "kueue", "raycluster"]


@each
def test_the_command_parses_and_its_config_loads(overlay: Path, tmp_path: Path) -> None:
    objects = rendered(overlay)
    config = config_of(objects, tmp_path)
    for words in commands(objects):
        assert words[0] == "ray-ns"
        verb = typer.main.get_command(app).commands[words[1]]  # type: ignore[attr-defined]
        given = verb.make_context(words[1], list(words[2:])).params
        if words[1] == "run":
            assert given["config"] == "/etc/ray-ns/run.yaml"
            load(config, given["overrides"] or [])
    found = load(config)
    for path in (found.run.dir, *(getattr(found.data, it) for it in ("labelled", "validation", "test", "pool"))):
        assert "://" in path or _mounted(objects, path), path


def _mounted(objects: Objects, path: str) -> bool:
    """Whether a path lies on a claim that every Ray pod mounts; it was absolute in the file."""
    text = next(it["data"]["run.yaml"] for it in of_kind(objects, "ConfigMap") if "run.yaml" in it["data"])
    every = [it for it in pods(objects) if it.name != "submitter"]
    return f" {path}" in text and all(any(path.startswith(f"{it}/") for it in _claims(pod.spec)) for pod in every)


def _claims(spec: dict[str, Any]) -> list[str]:
    names = {it["name"] for it in spec["volumes"] if "persistentVolumeClaim" in it}
    return [it["mountPath"] for it in spec["containers"][0]["volumeMounts"] if it["name"] in names]


def nodes(objects: Objects) -> list[Node]:
    """The nodes that Ray would see of the pods: their labels, CPUs and GPUs."""
    found = []
    for spec in clusters(objects):
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
            cpus = float(group["rayStartParams"].get("num-cpus", limits["cpu"]))
            one = Node("", group.get("labels", {}), cpus, float(limits.get("nvidia.com/gpu", 0)))
            found += [one] * group.get("replicas", 1)
    return found


@each
def test_the_pods_hold_every_worker_of_the_config(overlay: Path, tmp_path: Path) -> None:
    objects = rendered(overlay)
    found = load(config_of(objects, tmp_path))
    for shape in shapes(found):
        assert held_by_all(shape, nodes(objects)) == shape.count, shape.in_words
    assert found.cluster.decode_on == {"ray-ns/decode": "true"}
    if any(it.gpus for it in nodes(objects)):
        assert found.cluster.train_on == found.cluster.teachers_on == {"ray-ns/gpu": "true"}


@each
def test_a_kustomization_of_ones_own_renames_all_and_sets_the_image(overlay: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(KUBERAY, tmp_path / "kuberay")
    mine = tmp_path / "kuberay/mine"
    mine.mkdir()
    own = {
        "resources": [f"../{overlay.relative_to(KUBERAY)}"],
        "namePrefix": "b7-",
        "namespace": "vision",
        "images": [{"name": PLACEHOLDER, "newName": "registry.example.com/ray-ns", "digest": DIGEST}],
    }
    (mine / "kustomization.yaml").write_text(yaml.safe_dump(own))
    objects = rendered(mine)
    assert schema_errors(objects) + operator_errors(objects) + pod_errors(objects) == []
    assert {it["metadata"]["namespace"] for it in objects} == {"vision"}
    assert all(it["metadata"]["name"].startswith("b7-ray-ns") for it in objects)
    for pod in pods(objects):
        assert {it["image"] for it in pod.containers} == {f"registry.example.com/ray-ns@{DIGEST}"}
        assert list(image(objects, pod)) == []


@each
def test_what_a_run_needs_of_its_cluster(overlay: Path) -> None:
    objects = rendered(overlay)
    for spec in clusters(objects):
        assert spec["rayVersion"] == _pinned("ray")
        assert spec["authOptions"] == {"mode": "token", "secretName": "ray-ns-token"}
        ports = {it["name"] for it in spec["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]}
        assert ports == {"gcs-server", "dashboard", "metrics", "as-metrics", "dash-metrics"}
        scaled = {it["groupName"] for it in spec["workerGroupSpecs"] if it["minReplicas"] < it["maxReplicas"]}
        assert scaled == (set() if overlay.name == "kueue" else {"cpu"})
        assert spec.get("enableInTreeAutoscaling", False) == (overlay.name != "kueue")
    for job in of_kind(objects, "RayJob"):
        assert job["spec"]["shutdownAfterJobFinishes"] is True
        assert job["spec"]["ttlSecondsAfterFinished"] >= 60  # the last metrics are scraped
        assert job["spec"]["submitterConfig"]["backoffLimit"] >= 100
        assert job["spec"]["submissionMode"] == "K8sJobMode"  # driver.sh: a stopped job's submitter ends with 0
    assert len(of_kind(objects, "RayJob")) == (overlay.name != "raycluster")


@each
def test_nobody_empties_a_node_under_a_run(overlay: Path) -> None:
    for pod in pods(rendered(overlay)):
        if pod.name != "submitter":
            assert pod.template["metadata"]["annotations"] == {
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                "karpenter.sh/do-not-disrupt": "true",
            }


def _pinned(name: str) -> str:
    found = re.search(rf"^{name}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None
    return found.group(1)


def test_the_queue_of_kueue() -> None:
    (job,) = of_kind(rendered(KUBERAY / "overlays/kueue"), "RayJob")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "ray-ns"
    assert job["spec"]["suspend"] is True
    assert "autoscalerOptions" not in job["spec"]["rayClusterSpec"]


def test_spot_nodes_are_asked_for_by_the_gpu_group_alone() -> None:
    found = {it.name: it.spec.get("nodeSelector") for it in pods(rendered(KUBERAY / "overlays/gpu-spot"))}
    assert found == {**dict.fromkeys(("submitter", "head", "cpu")), "gpu": {"karpenter.sh/capacity-type": "spot"}}


def test_the_demo_of_a_cluster_is_the_demo() -> None:
    here = yaml.safe_load((KUBERAY / "overlays/dev-cpu/run.yaml").read_text())
    there = yaml.safe_load((ROOT / "configs/demo.yaml").read_text())
    assert here.pop("cluster") == {"decode_on": {"ray-ns/decode": "true"}}
    assert here["run"].pop("dir") == "/data/" + there["run"].pop("dir")
    for name in ("labelled", "validation", "test", "pool"):
        assert here["data"].pop(name) == "/" + there["data"].pop(name)
    assert here == there


# Who may talk to whom


def allowed(objects: Objects, to: str, peer: dict[str, Any], port: int) -> bool:
    """Whether a policy of the pod ``to`` lets this peer in at the port."""
    labels = next(it.labels for it in pods(objects) if it.name == to)
    return any(
        peer in rule["from"] and port in {it["port"] for it in rule.get("ports", [])}
        for policy in of_kind(objects, "NetworkPolicy")
        if policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
        for rule in policy["spec"].get("ingress", [])
    )


@each
def test_operator_clients_and_prometheus_reach_what_they_need_and_no_more(overlay: Path) -> None:
    objects = rendered(overlay)
    operator = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
    }
    client = {"podSelector": {"matchLabels": {"ray-ns/client": "true"}}}
    prometheus = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
    }
    assert allowed(objects, "head", operator, 8265)
    assert allowed(objects, "head", client, 8265)
    assert not allowed(objects, "cpu", client, 8265)
    for port in (8080, 44217, 44227):
        assert allowed(objects, "head", prometheus, port)
        assert not allowed(objects, "head", client, port)
    assert allowed(objects, "cpu", prometheus, 8080)
    assert not allowed(objects, "head", prometheus, 8265)
    for policy in of_kind(objects, "NetworkPolicy"):
        for rule in policy["spec"].get("egress", []):
            for block in (it["ipBlock"] for it in rule["to"] if "ipBlock" in it):
                wide = block["cidr"] == "0.0.0.0/0"
                assert not wide or block["except"] == ["169.254.169.254/32"]  # the node's role


@each
def test_only_the_autoscaler_has_a_token_of_the_api(overlay: Path) -> None:
    objects = rendered(overlay)
    for pod in pods(objects):
        mounts = {mount["name"] for it in pod.containers for mount in it.get("volumeMounts", [])}
        assert "api-token" not in mounts
    for it in of_kind(objects, "ServiceAccount"):
        assert it["automountServiceAccountToken"] is False


def test_monitors_meet_the_pods() -> None:
    files = sorted((CLUSTER / "monitoring").rglob("*.yaml"))
    found = [
        it for path in files for it in yaml.safe_load_all(path.read_text()) if it and it.get("kind") == "PodMonitor"
    ]
    assert found
    assert pod_errors([*rendered(KUBERAY / "overlays/gpu"), *found]) == []
