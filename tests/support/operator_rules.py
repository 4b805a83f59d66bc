"""What KubeRay 1.7 refuses or ignores though the schema of its objects allows it: one function for each rule.

Each gives what the operator says (``ray-operator/controllers/ray/utils/validation.go``), shortened, or what it does
where it says nothing. Alpha features count as off, which is how the operator is installed.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from support.manifests import Objects, clusters, of_kind

Spec = dict[str, Any]
Lines = Iterator[str]

_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
_AUTOSCALER_V2 = "RAY_enable_autoscaler_v2"
_NOT_SHUT = "a RayJob with shutdownAfterJobFinishes set to false"


def operator_errors(objects: Objects) -> list[str]:
    """What the operator would say to all RayJobs and RayClusters."""
    found = []
    for job in of_kind(objects, "RayJob"):
        found += [line for rule in OF_JOBS for line in rule(job)]
    for cluster in of_kind(objects, "RayCluster"):
        found += list(cluster_name(cluster))
    for spec in clusters(objects):
        found += [line for rule in OF_CLUSTERS for line in rule(spec)]
    return found


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:3]))


def _groups(spec: Spec) -> list[tuple[str, Spec]]:
    workers = [(it["groupName"], it) for it in spec.get("workerGroupSpecs", [])]
    return [("Head", spec["headGroupSpec"]), *workers]


def _pod(group: Spec) -> Spec:
    return group["template"]["spec"]


def _head_names(spec: Spec) -> set[str]:
    return {it["name"] for it in _pod(spec["headGroupSpec"])["containers"][0].get("env", [])}


def _version_2(spec: Spec) -> bool:
    """Whether autoscaler v2 is on."""
    return spec.get("autoscalerOptions", {}).get("version") == "v2" or _AUTOSCALER_V2 in _head_names(spec)


# Of a RayJob


def job_name(job: Spec) -> Lines:
    for line in _name(job, 47):
        yield f"The RayJob metadata is invalid: {line}"


def submission_mode(job: Spec) -> Lines:
    mode = job["spec"].get("submissionMode", "K8sJobMode")
    if mode not in _MODES:
        yield f"unsupported submission mode: {mode}"  # nothing submits the job, and it stays Running


def sidecar(job: Spec) -> Lines:
    spec = job["spec"]
    if spec.get("submissionMode") != "SidecarMode":
        return
    if "submitterPodTemplate" in spec:
        yield "Currently, SidecarMode doesn't support SubmitterPodTemplate"
    if "submitterConfig" in spec:
        yield "Currently, SidecarMode doesn't support SubmitterConfig"
    if spec.get("clusterSelector"):
        yield "ClusterSelector is not supported in SidecarMode"


def cluster_of_job(job: Spec) -> Lines:
    if "rayClusterSpec" not in job["spec"] and not job["spec"].get("clusterSelector"):
        yield "one of RayClusterSpec or ClusterSelector must be set"


def retries(job: Spec) -> Lines:
    spec = job["spec"]
    limit = spec.get("backoffLimit", 0)
    if limit < 0:
        yield "backoffLimit must be a positive integer"
    if limit > 0 and spec.get("clusterSelector"):
        yield "BackoffLimit is incompatible with ClusterSelector mode"
    if limit > 0 and spec.get("submissionMode") == "InteractiveMode":
        yield "BackoffLimit is incompatible with InteractiveMode"


def suspension(job: Spec) -> Lines:
    spec = job["spec"]
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        yield f"{_NOT_SHUT} is not allowed to be suspended"
    if spec.get("suspend") and spec.get("clusterSelector"):
        yield "the ClusterSelector mode doesn't support the suspend operation"


def time_to_live(job: Spec) -> Lines:
    seconds = job["spec"].get("ttlSecondsAfterFinished", 0)
    if seconds < 0:
        yield "TTLSecondsAfterFinished must be a non-negative integer"
    if seconds > 0 and not job["spec"].get("shutdownAfterJobFinishes"):
        yield f"{_NOT_SHUT} cannot have TTLSecondsAfterFinished"


def deletion(job: Spec) -> Lines:
    strategy = job["spec"].get("deletionStrategy")
    if strategy is None:
        return
    rules, legacy = strategy.get("deletionRules"), {"onSuccess", "onFailure"} & set(strategy)
    if rules and job["spec"].get("shutdownAfterJobFinishes"):
        yield "spec.shutdownAfterJobFinishes and spec.deletionStrategy.deletionRules are mutually exclusive"
    if rules and legacy:
        yield "Cannot use both legacy onSuccess/onFailure fields and deletionRules simultaneously"
    if not rules and len(legacy) != 2:
        yield "DeletionStrategy requires either BOTH onSuccess and onFailure, OR the deletionRules field"


def deadlines(job: Spec) -> Lines:
    for name in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if job["spec"].get(name, 1) <= 0:
            yield f"{name} must be a positive integer"


def cluster_name(cluster: Spec) -> Lines:
    yield from _name(cluster, 53)


def _name(resource: Spec, most: int) -> Lines:
    kind, name = resource["kind"], resource["metadata"]["name"]
    if len(name) > most:
        yield f"{kind} name should be no more than {most} characters: {name}"
    if not _DNS_1035.fullmatch(name):
        yield f"{kind} name should be a valid DNS1035 label: {name}"


# Of a cluster


def token(spec: Spec) -> Lines:
    options = spec.get("authOptions", {})
    version = spec.get("rayVersion", "")
    if options.get("mode") != "token":
        yield "nothing: without authOptions.mode token whoever reaches the head can run code on the cluster"
    elif not version:
        yield "authOptions.mode is 'token' but RayVersion was not specified. Ray version 2.52.0 or later is required"
    elif _version(version) < (2, 52, 0):
        yield f"authOptions.mode is 'token' but minimum Ray version is 2.52.0, got {version}"


def network_policy_of_kuberay(spec: Spec) -> Lines:
    if "networkPolicy" in spec:
        yield "spec.networkPolicy requires the RayClusterNetworkPolicy feature gate to be enabled"


def tls_of_kuberay(spec: Spec) -> Lines:
    if "tlsOptions" in spec:
        yield "spec.tlsOptions requires the RayClusterMTLS feature gate to be enabled"


def history_server(spec: Spec) -> Lines:
    if "historyServerOptions" in spec:
        yield "RayClusterHistoryServer feature gate is not enabled"


def rocksdb(spec: Spec) -> Lines:
    options = spec.get("gcsFaultToleranceOptions", {})
    if options.get("backend") == "rocksdb":
        yield "the embedded RocksDB backend requires the GCSFaultToleranceEmbeddedStorage feature gate to be enabled"
    elif "storage" in options:
        yield "cannot set GcsFaultToleranceOptions.Storage when backend is 'redis'"


def restart_policy(spec: Spec) -> Lines:
    for name, group in _groups(spec) if _version_2(spec) else []:
        if _pod(group).get("restartPolicy", "Never") != "Never":
            yield f"restartPolicy for {name} should be Never or unset when using autoscaler V2"


def autoscaler_once(spec: Spec) -> Lines:
    if "version" in spec.get("autoscalerOptions", {}) and _AUTOSCALER_V2 in _head_names(spec):
        yield f"both .spec.autoscalerOptions.version and {_AUTOSCALER_V2} are set, please only use the former"


def labels(spec: Spec) -> Lines:
    for name, group in _groups(spec):
        if "labels" in group.get("rayStartParams", {}):
            yield f"rayStartParams['labels'] is not supported for {name} group; please use the top-level Labels field"
        for key, value in group.get("labels", {}).items():
            if not _LABEL_KEY.fullmatch(key):
                yield f"invalid label key for {name} group: '{key}'"
            if not _LABEL_VALUE.fullmatch(value):
                yield f"invalid label value for key '{key}' in {name} group: '{value}'"


def resources_once(spec: Spec) -> Lines:
    for name, group in _groups(spec):
        given = {"num-cpus", "num-gpus", "memory", "resources"} & set(group.get("rayStartParams", {}))
        if given and group.get("resources"):
            yield f"resource fields should not be set in both rayStartParams and Resources for {name} group"


def priority(spec: Spec) -> Lines:
    for name, group in _groups(spec):
        if not group.get("priority"):
            continue
        version = spec.get("rayVersion", "")
        if not version:
            yield f"worker group {name}: priority is set, but RayVersion was not specified"
        elif _version(version) < (2, 56, 0):
            yield f"worker group {name}: priority is set, but minimum Ray version is 2.56.0, got {version}"
        elif not _version_2(spec):
            yield f"worker group {name}: priority is set to {group['priority']}, but autoscaler v2 is not enabled"


def idle_timeout(spec: Spec) -> Lines:
    for name, group in _groups(spec):
        if "idleTimeoutSeconds" in group and not _version_2(spec):
            yield f"worker group {name}: idleTimeoutSeconds is set, but autoscaler v2 is not enabled"


def group_name(spec: Spec) -> Lines:
    for it in spec.get("workerGroupSpecs", []):
        if len(it["groupName"]) > 63 or not _DNS_1123.fullmatch(it["groupName"]):
            yield f"worker group name {it['groupName']!r} must be a valid DNS1123 label"
    names = [it["groupName"] for it in spec.get("workerGroupSpecs", [])]
    if len(set(names)) < len(names):
        yield "nothing: two worker groups of one name are taken for one"


def replicas(spec: Spec) -> Lines:
    scaled = spec.get("enableInTreeAutoscaling", False)
    for it in spec.get("workerGroupSpecs", []):
        name, least, most = it["groupName"], it.get("minReplicas"), it.get("maxReplicas")
        if not scaled and (least is None or most is None):
            yield f"worker group {name} must set both minReplicas and maxReplicas when autoscaling is disabled"
        if least is not None and least < 0:
            yield f"worker group {name} has negative minReplicas {least}"
        if least is not None and most is not None and least > most:
            yield f"worker group {name} has minReplicas {least} greater than maxReplicas {most}"
        if None not in (least, most) and not least <= it.get("replicas", least) <= most:
            yield f"nothing: worker group {name} has replicas outside of its least and most, which are obeyed"


OF_JOBS: tuple[Callable[[Spec], Lines], ...] = (
    job_name,
    submission_mode,
    sidecar,
    cluster_of_job,
    retries,
    suspension,
    time_to_live,
    deletion,
    deadlines,
)
OF_CLUSTERS: tuple[Callable[[Spec], Lines], ...] = (
    token,
    network_policy_of_kuberay,
    tls_of_kuberay,
    history_server,
    rocksdb,
    restart_policy,
    autoscaler_once,
    labels,
    resources_once,
    priority,
    idle_timeout,
    group_name,
    replicas,
)
