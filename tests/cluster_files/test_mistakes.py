"""Mistakes that one makes in manifests of KubeRay, each planted into a good overlay: schema or rules must refuse it.

The schema catches few of them; the operator refuses or ignores the rest only when a GPU cluster is wanted.
"""

import re
from collections.abc import Callable
from typing import Any

import pytest
from support.manifests import CLUSTER, Objects, of_kind, rendered, schema_errors
from support.operator_rules import operator_errors
from support.pod_rules import pod_errors

GONE = object()
HEAD = "spec.rayClusterSpec.headGroupSpec"
CPU, GPU = (f"spec.rayClusterSpec.workerGroupSpecs.{at}" for at in (0, 1))
POD = "template.spec"
RAY = f"{POD}.containers.0"
Plant = Callable[[Objects], None]


def put(kind: str, name: str, values: dict[str, Any]) -> Plant:
    """Set values at dotted places of the object whose kind is ``kind`` and whose name begins so; ``GONE`` removes."""

    def plant(objects: Objects) -> None:
        it = next(it for it in of_kind(objects, kind) if it["metadata"]["name"].startswith(name))
        for path, value in values.items():
            *way, last = path.split(".")
            place: Any = it
            for step in way:
                place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
            if value is GONE:
                del place[int(last) if isinstance(place, list) else last]
            elif isinstance(place, list):
                place[int(last) : int(last) + 1] = [value]
            else:
                place[last] = value

    return plant


def job(values: dict[str, Any]) -> Plant:
    return put("RayJob", "", values)


def at(path: str, value: Any) -> Plant:
    return job({path: value})


def both(*plants: Plant) -> Plant:
    def plant(objects: Objects) -> None:
        for it in plants:
            it(objects)

    return plant


def more_env(group: str, name: str, value: str) -> Plant:
    return at(f"{group}.{RAY}.env.99", {"name": name, "value": value})


def no_labels(objects: Objects) -> None:
    for group in (HEAD, CPU, GPU):
        at(f"{group}.template.metadata.labels", {"app.kubernetes.io/part-of": "ray_ns"})(objects)


def monitor(**spec: Any) -> Plant:
    def plant(objects: Objects) -> None:
        whole = {
            "selector": {"matchLabels": {"ray.io/node-type": "head"}},
            "podMetricsEndpoints": [{"port": "metrics"}],
        }
        objects.append({"kind": "PodMonitor", "metadata": {"name": "m"}, "spec": {**whole, **spec}})

    return plant


def secret(objects: Objects) -> None:
    objects.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ray-ns-s3"}, "stringData": {"a": "b"}})


CLUSTER_SPEC = "spec.rayClusterSpec"
OPTIONS = f"{CLUSTER_SPEC}.autoscalerOptions"
RULE = {"condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 5}, "policy": "DeleteCluster"}
SELF = {"policy": "DeleteSelf"}
NO_PODS = at("spec.submitterPodTemplate", GONE)

MISTAKES: dict[str, tuple[Plant, str]] = {
    # What the schema sees
    "an unknown key": (at("spec.entryPoint", "x"), "entryPoint"),
    "an unknown key in a pod": (at(f"{GPU}.{POD}.toleration", []), "toleration"),
    "a wrong type": (at("spec.backoffLimit", "3"), "'3' is not of type 'integer'"),
    "a bad quantity": (at(f"{CPU}.{RAY}.resources.limits.memory", "100 GB"), "100 GB"),
    "no template": (at(f"{HEAD}.template", GONE), "'template' is a required property"),
    # What the operator refuses
    "a token without a version": (at(f"{CLUSTER_SPEC}.rayVersion", GONE), "RayVersion was not specified"),
    "a token and an old version": (at(f"{CLUSTER_SPEC}.rayVersion", "2.51.1"), "minimum Ray version is 2.52.0"),
    "no token": (at(f"{CLUSTER_SPEC}.authOptions", GONE), "without authOptions.mode token"),
    "KubeRay's own network policy": (
        at(f"{CLUSTER_SPEC}.networkPolicy", {"mode": "DenyAll"}),
        "RayClusterNetworkPolicy",
    ),
    "KubeRay's own TLS": (at(f"{CLUSTER_SPEC}.tlsOptions", {"enabled": True}), "RayClusterMTLS"),
    "the history server": (at(f"{CLUSTER_SPEC}.historyServerOptions", {}), "RayClusterHistoryServer"),
    "RocksDB": (at(f"{CLUSTER_SPEC}.gcsFaultToleranceOptions", {"backend": "rocksdb"}), "EmbeddedStorage"),
    "a head that restarts": (at(f"{HEAD}.{POD}.restartPolicy", "Always"), "restartPolicy for Head"),
    "workers that restart": (at(f"{GPU}.{POD}.restartPolicy", "OnFailure"), "restartPolicy for gpu"),
    "autoscaler v2 twice": (more_env(HEAD, "RAY_enable_autoscaler_v2", "1"), "please only use the former"),
    "labels as a parameter": (at(f"{GPU}.rayStartParams.labels", "a=b"), "top-level Labels field"),
    "a label that is none": (at(f"{GPU}.labels", {"ray ns/gpu": "true"}), "invalid label key"),
    "resources twice": (
        both(at(f"{CPU}.resources", {"CPU": "8"}), at(f"{CPU}.rayStartParams.num-cpus", "8")),
        "in both rayStartParams and Resources",
    ),
    "GPUs twice": (
        both(at(f"{GPU}.resources", {"GPU": "8"}), at(f"{GPU}.rayStartParams.num-gpus", "8")),
        "in both rayStartParams and Resources",
    ),
    "memory twice": (
        both(at(f"{GPU}.resources", {"CPU": "8"}), at(f"{GPU}.rayStartParams.memory", "8")),
        "in both rayStartParams and Resources",
    ),
    "a priority without v2": (both(at(f"{GPU}.priority", 5), at(OPTIONS, {"version": "v1"})), "priority is set to 5"),
    "a priority and an old Ray": (
        both(at(f"{GPU}.priority", 5), at(f"{CLUSTER_SPEC}.rayVersion", "2.55.0")),
        "minimum Ray version is 2.56.0",
    ),
    "a group's idle time without v2": (at(f"{OPTIONS}.version", GONE), "idleTimeoutSeconds is set"),
    "a group's name": (at(f"{GPU}.groupName", "GPU_nodes"), "valid DNS1123 label"),
    "a long name": (at("metadata.name", "r" * 48), "no more than 47 characters"),
    "a name that begins with a digit": (at("metadata.name", "2nd-run"), "valid DNS1035 label"),
    "a mode of submission": (at("spec.submissionMode", "K8SJobMode"), "unsupported submission mode"),
    "a sidecar with a template": (
        both(at("spec.submissionMode", "SidecarMode"), at("spec.submitterConfig", GONE)),
        "doesn't support SubmitterPodTemplate",
    ),
    "a sidecar with a limit": (
        both(at("spec.submissionMode", "SidecarMode"), NO_PODS),
        "doesn't support SubmitterConfig",
    ),
    "a sidecar on another cluster": (
        job({"spec.submissionMode": "SidecarMode", "spec.clusterSelector": {"ray.io/cluster": "x"}}),
        "ClusterSelector is not supported in SidecarMode",
    ),
    "retries on another cluster": (at("spec.clusterSelector", {"ray.io/cluster": "x"}), "ClusterSelector mode"),
    "retries of an interactive job": (at("spec.submissionMode", "InteractiveMode"), "InteractiveMode"),
    "suspended and not shut down": (
        job({"spec.suspend": True, "spec.shutdownAfterJobFinishes": False, "spec.ttlSecondsAfterFinished": 0}),
        "not allowed to be suspended",
    ),
    "a time to live and not shut down": (
        at("spec.shutdownAfterJobFinishes", GONE),
        "cannot have TTLSecondsAfterFinished",
    ),
    "a time to live below 0": (at("spec.ttlSecondsAfterFinished", -1), "non-negative"),
    "deletion by rules and by fields": (
        job(
            {
                "spec.deletionStrategy": {"deletionRules": [RULE], "onSuccess": SELF, "onFailure": SELF},
                "spec.shutdownAfterJobFinishes": False,
                "spec.ttlSecondsAfterFinished": 0,
            }
        ),
        "legacy onSuccess/onFailure",
    ),
    "deletion by rules and a shutdown": (at("spec.deletionStrategy", {"deletionRules": [RULE]}), "mutually exclusive"),
    "no cluster": (at(CLUSTER_SPEC, GONE), "one of RayClusterSpec or ClusterSelector must be set"),
    "a deadline of 0": (at("spec.activeDeadlineSeconds", 0), "activeDeadlineSeconds must be a positive integer"),
    "least over most": (at(f"{CPU}.minReplicas", 9), "minReplicas 9 greater than maxReplicas 8"),
    "no most without an autoscaler": (
        both(at(f"{CLUSTER_SPEC}.enableInTreeAutoscaling", False), at(f"{GPU}.maxReplicas", GONE)),
        "'maxReplicas' is a required property",  # the schema is first
    ),
    # What Kubernetes refuses later, or allows and should not be
    "limits below requests": (at(f"{GPU}.{RAY}.resources.limits.memory", "10Gi"), "less than or equal to memory limit"),
    "limits over requests": (at(f"{GPU}.{RAY}.resources.limits.memory", "2000Gi"), "may use 2000Gi"),
    "no limit": (at(f"{CPU}.{RAY}.resources.limits", GONE), "no limit of cpu"),
    "a mount without its volume": (at(f"{GPU}.{POD}.volumes.2", GONE), "Not found: spill"),
    "a token volume without its volume": (at(f"{HEAD}.{POD}.volumes.4", GONE), "Not found: api-token"),
    "a volume without an end": (at(f"{CPU}.{POD}.volumes.1.emptyDir", {}), "no sizeLimit"),
    "volumes over the limit": (at(f"{CPU}.{POD}.volumes.1.emptyDir.sizeLimit", "500Gi"), "is evicted at 150"),
    "an image by tag": (at(f"{GPU}.{RAY}.image", "rayproject/ray:2.60.0"), "not named by its digest"),
    "an image without a tag": (
        at("spec.submitterPodTemplate.spec.containers.0.image", "ray-ns"),
        "not named by its digest",
    ),
    "a secret in the environment": (more_env(GPU, "AWS_SECRET_ACCESS_KEY", "x"), "AWS_SECRET_ACCESS_KEY stands"),
    "a token in the environment": (more_env(HEAD, "RAY_AUTH_TOKEN", "x"), "RAY_AUTH_TOKEN stands"),
    "a secret in a ConfigMap": (
        put("ConfigMap", "ray-ns-env", {"data.HF_TOKEN": "x"}),
        "HF_TOKEN stands",
    ),
    "a secret among the manifests": (secret, "Secret ray-ns-s3 stands"),
    "root by number": (at(f"{GPU}.{POD}.securityContext.runAsUser", 0), "may run as root"),
    "root by the container": (at(f"{HEAD}.{RAY}.securityContext.runAsNonRoot", False), "may run as root"),
    "a way to become root": (at(f"{CPU}.{RAY}.securityContext.allowPrivilegeEscalation", GONE), "may gain privileges"),
    "capabilities": (at(f"{CPU}.{RAY}.securityContext.capabilities", GONE), "has capabilities"),
    "no seccomp profile": (at(f"{CPU}.{POD}.securityContext.seccompProfile", GONE), "seccompProfile"),
    "a token of the API": (at(f"{GPU}.{POD}.automountServiceAccountToken", GONE), "has a token of the Kubernetes API"),
    "pods that no policy meets": (no_labels, "no NetworkPolicy for Ingress"),
    "a policy that meets no pod": (
        put("NetworkPolicy", "ray-ns-head", {"spec.podSelector.matchLabels": {"ray.io/node-type": "driver"}}),
        "NetworkPolicy ray-ns-head: its podSelector matches no pod",
    ),
    "workers that the head cannot reach": (
        put("NetworkPolicy", "ray-ns", {"spec.egress.0.to.0.podSelector.matchLabels": {"ray.io/node-type": "head"}}),
        "cannot reach gpu",
    ),
    "a monitor that meets no pod": (monitor(selector={"matchLabels": {"app": "ray"}}), "PodMonitor m: its selector"),
    "a monitor of a port that is none": (monitor(podMetricsEndpoints=[{"port": "8080"}]), "no pod has a port 8080"),
    # What loses a run's work or a node's time
    "killed within the drain": (at(f"{GPU}.{POD}.terminationGracePeriodSeconds", 30), "within the drain of 60 s"),
    "a head with tasks": (at(f"{HEAD}.rayStartParams.num-cpus", GONE), "head: takes tasks"),
    "a GPU group that is scaled": (at(f"{GPU}.minReplicas", 0), "the group is scaled"),
    "spilling onto the root disk": (
        at(f"{GPU}.rayStartParams.object-spilling-directory", GONE),
        "spills into no volume",
    ),
    "scratch on the root disk": (put("ConfigMap", "ray-ns-env", {"data.TMPDIR": "/tmp"}), "TMPDIR is no volume"),
    "logs that follow TMPDIR": (put("ConfigMap", "ray-ns-env", {"data.RAY_TMPDIR": GONE}), "Ray's logs follow TMPDIR"),
    "a ConfigMap under its old name": (
        at(f"{GPU}.{POD}.volumes.0.configMap.name", "ray-ns"),
        "ConfigMap ray-ns not found",
    ),
    "an account that nobody makes": (at(f"{GPU}.{POD}.serviceAccountName", "ray"), "ServiceAccount ray is not found"),
}


def refusals(objects: Objects) -> list[str]:
    """All that is wrong; the rules ask for what the schema has allowed."""
    return schema_errors(objects) or [*operator_errors(objects), *pod_errors(objects)]


def test_the_overlay_is_good_without_them() -> None:
    assert refusals(rendered(CLUSTER / "kuberay/overlays/gpu")) == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused(mistake: str) -> None:
    objects = rendered(CLUSTER / "kuberay/overlays/gpu")
    plant, line = MISTAKES[mistake]
    plant(objects)
    assert any(re.search(re.escape(line), it) for it in refusals(objects)), refusals(objects)


@pytest.mark.parametrize(
    ("name", "line"), [("r" * 54, "no more than 53 characters"), ("ray_ns", "valid DNS1035 label")]
)
def test_a_name_of_a_cluster_is_refused(name: str, line: str) -> None:
    objects = rendered(CLUSTER / "kuberay/raycluster")
    put("RayCluster", "", {"metadata.name": name})(objects)
    assert any(line in it for it in refusals(objects))
