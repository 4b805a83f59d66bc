"""Kubernetes manifests of ``cluster/``: rendered by kubectl, looked at, and held to their schemas."""

import copy
import functools
import json
import lzma
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
SCHEMAS = ROOT / "tests/cluster_files/kuberay"
KUBERNETES = "1.32"
Objects = list[dict[str, Any]]

# What KubeRay 1.7 puts on every pod beside the template's labels.
OF_KUBERAY = {"ray.io/is-ray-node": "yes", "app.kubernetes.io/name": "kuberay"}


def render(folder: Path) -> Objects:
    """What ``kubectl apply -k folder`` would send. Skips the test where there is no kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl on this machine; it renders the overlays")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [it for it in yaml.safe_load_all(done.stdout) if it]


@functools.cache
def _rendered(folder: Path) -> Objects:
    return render(folder)


def rendered(folder: Path) -> Objects:
    """The same, rendered once; a copy to change."""
    return copy.deepcopy(_rendered(folder))


def of_kind(objects: Objects, kind: str) -> Objects:
    """The objects of a kind."""
    return [it for it in objects if it["kind"] == kind]


def clusters(objects: Objects) -> Iterator[dict[str, Any]]:
    """The specification of every Ray cluster, one of its own or a RayJob's."""
    for it in objects:
        if it["kind"] == "RayCluster":
            yield it["spec"]
        elif it["kind"] == "RayJob" and "rayClusterSpec" in it["spec"]:
            yield it["spec"]["rayClusterSpec"]


@dataclass(frozen=True)
class Pod:
    """A pod template inside KubeRay's objects. ``labels``: all that the pod will bear. ``group``: its Ray labels."""

    name: str
    template: dict[str, Any]
    labels: dict[str, str]
    group: dict[str, str]

    @property
    def spec(self) -> dict[str, Any]:
        return self.template["spec"]

    @property
    def containers(self) -> Objects:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pods(objects: Objects) -> Iterator[Pod]:
    """Every pod template: heads, worker groups, submitters."""
    for job in of_kind(objects, "RayJob"):
        template = job["spec"].get("submitterPodTemplate")
        if template:
            yield Pod("submitter", template, template.get("metadata", {}).get("labels", {}), {})
    for spec in clusters(objects):
        groups = [("head", "head", spec["headGroupSpec"])]
        groups += [(it["groupName"], "worker", it) for it in spec.get("workerGroupSpecs", [])]
        for name, kind, group in groups:
            own, ray = group["template"].get("metadata", {}).get("labels", {}), group.get("labels", {})
            yield Pod(name, group["template"], {**OF_KUBERAY, **own, **ray, "ray.io/node-type": kind}, ray)


def environment(objects: Objects, container: dict[str, Any]) -> dict[str, str]:
    """What a container's environment says in plain text, from its ConfigMaps and itself."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        name = source.get("configMapRef", {}).get("name")
        for it in of_kind(objects, "ConfigMap"):
            found |= it["data"] if it["metadata"]["name"] == name else {}
    return found | {it["name"]: it["value"] for it in container.get("env", []) if "value" in it}


_UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def quantity(text: str | int) -> float:
    """A Kubernetes quantity as a number."""
    number, unit = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]


@functools.cache
def _of_kuberay(kind: str) -> Any:
    from jsonschema import Draft7Validator

    packed = SCHEMAS / f"{kind.lower()}s_v1.strict.json.xz"
    return Draft7Validator(json.loads(lzma.decompress(packed.read_bytes())))


def schema_errors(objects: Objects) -> list[str]:
    """What the strict schemas refuse: KubeRay's of its own kinds, Kubernetes' of the rest and of all pod templates."""
    found = []
    for it in objects:
        if it["kind"] in {"RayJob", "RayCluster"}:
            errors = _of_kuberay(it["kind"]).iter_errors(it)
            found += [f"{it['kind']}: {'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]
        elif it["kind"] != "PodMonitor":  # of an operator whose schema is not here
            found += _kubernetes(json.dumps(it))
    templates = pods(objects) if not found else ()  # which are where the schema says
    for pod in templates:
        found += _kubernetes(json.dumps({"apiVersion": "v1", "kind": "PodTemplate", "template": pod.template}))
    return found


@functools.cache  # most objects are the same in many tests, and a look takes a tenth of a second
def _kubernetes(text: str) -> list[str]:
    import kubernetes_validate

    it = json.loads(text)
    try:
        kubernetes_validate.validate(it, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{it['kind']}: {'.'.join(map(str, error.path))}: {error.message}"]
    return []
