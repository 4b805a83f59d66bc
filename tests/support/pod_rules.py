"""What Kubernetes refuses later, or allows and should not be: one function for each rule about the pods of a run."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from support.manifests import Objects, Pod, clusters, environment, of_kind, pods, quantity

Lines = Iterator[str]

PLACEHOLDER = "ray-ns.invalid/ray-ns"  # an address that leads nowhere until `images:` replaces it
_DIGEST = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|ACCESS_KEY|API_KEY|PRIVATE_KEY", re.IGNORECASE)
_NO_SECRET = re.compile(r"_PATH$|_FILE$")  # says where one lies
DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
CHECKPOINT_SECONDS = 30  # beside the drain: for the processes to end


def pod_errors(objects: Objects) -> list[str]:
    """What the rules say of every pod."""
    found = [f"{pod.name}: {line}" for pod in pods(objects) for rule in OF_PODS for line in rule(objects, pod)]
    return found + [line for rule in OF_ALL for line in rule(objects)]


def image(objects: Objects, pod: Pod) -> Lines:
    for it in pod.containers:
        if it["image"] != PLACEHOLDER and not _DIGEST.fullmatch(it["image"]):
            yield f"{it['name']}: the image {it['image']} is not named by its digest"


def literal_secret(objects: Objects, pod: Pod) -> Lines:
    for it in pod.containers:
        for name in environment(objects, it):
            if _SECRET.search(name) and not _NO_SECRET.search(name):
                yield f"{it['name']}: the value of {name} stands in the manifest; take it from a Secret (secretKeyRef)"


def user(objects: Objects, pod: Pod) -> Lines:
    whole = pod.spec.get("securityContext", {})
    if whole.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "seccompProfile is not RuntimeDefault"
    for it in pod.containers:
        own = it.get("securityContext", {})
        both = {**whole, **own}
        if not both.get("runAsNonRoot") or both.get("runAsUser") == 0:
            yield f"{it['name']}: may run as root"
        if own.get("allowPrivilegeEscalation", True) or own.get("privileged"):
            yield f"{it['name']}: may gain privileges"
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own.get("capabilities", {}).get("add"):
            yield f"{it['name']}: has capabilities"
    if any(pod.spec.get(it) for it in ("hostNetwork", "hostPID", "hostIPC")):
        yield "shares the node's namespaces"


def api_token(objects: Objects, pod: Pod) -> Lines:
    if pod.spec.get("automountServiceAccountToken", True):
        yield "has a token of the Kubernetes API (automountServiceAccountToken)"


def service_account(objects: Objects, pod: Pod) -> Lines:
    name = pod.spec.get("serviceAccountName", "default")
    if name not in {it["metadata"]["name"] for it in of_kind(objects, "ServiceAccount")}:
        yield f"ServiceAccount {name} is not found"


def resources(objects: Objects, pod: Pod) -> Lines:
    for it in pod.containers:
        asked, most = (it.get("resources", {}).get(name, {}) for name in ("requests", "limits"))
        for name in ("cpu", "memory", "ephemeral-storage"):
            if name not in asked or name not in most:
                yield f"{it['name']}: no request or no limit of {name}"
        for name in set(asked) & set(most):
            if quantity(asked[name]) > quantity(most[name]):
                yield f"{it['name']}: must be less than or equal to {name} limit of {most[name]}: {asked[name]}"
            elif quantity(asked[name]) < quantity(most[name]):
                yield f"{it['name']}: requests {asked[name]} of {name} and may use {most[name]}"


def volumes(objects: Objects, pod: Pod) -> Lines:
    there = {it["name"] for it in pod.spec.get("volumes", [])}
    used = {(it["name"], mount["name"]) for it in pod.containers for mount in it.get("volumeMounts", [])}
    if pod.name == "head":
        for spec in clusters(objects):
            mounts = spec.get("autoscalerOptions", {}).get("volumeMounts", [])
            used |= {("autoscaler", mount["name"]) for mount in mounts}
    for name, mount in sorted(used):
        if mount not in there:
            yield f"{name}: volumeMounts: Not found: {mount}"
    for name in sorted(there - {mount for _, mount in used}):
        yield f"the volume {name} is mounted nowhere"


def storage(objects: Objects, pod: Pod) -> Lines:
    """Space of emptyDirs counts against the pod's limit of ephemeral storage: who passes it is evicted."""
    dirs = [it["emptyDir"] for it in pod.spec.get("volumes", []) if "emptyDir" in it]
    if any("sizeLimit" not in it for it in dirs):
        yield "an emptyDir has no sizeLimit"
        return
    total = sum(quantity(it["sizeLimit"]) for it in dirs)
    limit = sum(
        quantity(it["resources"].get("limits", {}).get("ephemeral-storage", 0)) for it in pod.spec["containers"]
    )
    if total > limit:
        yield f"its emptyDirs may hold {total / 2**30:g} Gi, and it is evicted at {limit / 2**30:g}"


def references(objects: Objects, pod: Pod) -> Lines:
    """ConfigMaps and claims that a pod names and nobody makes: it waits for ever."""
    maps = [it["configMap"]["name"] for it in pod.spec.get("volumes", []) if "configMap" in it]
    maps += [from_["configMapRef"]["name"] for it in pod.containers for from_ in it.get("envFrom", [])]
    claims = [it["persistentVolumeClaim"]["claimName"] for it in pod.spec.get("volumes", []) if _claims(it)]
    for kind, names in (("ConfigMap", maps), ("PersistentVolumeClaim", claims)):
        made = {it["metadata"]["name"] for it in of_kind(objects, kind)}
        for name in sorted(set(names) - made):
            yield f"{kind} {name} not found"


def _claims(volume: dict[str, Any]) -> bool:
    return "persistentVolumeClaim" in volume


def grace(objects: Objects, pod: Pod) -> Lines:
    if pod.name == "submitter":
        return
    drain = float(environment(objects, pod.spec["containers"][0]).get(DRAIN, 30))
    seconds = pod.spec.get("terminationGracePeriodSeconds", 30)
    if seconds < drain + CHECKPOINT_SECONDS:
        yield f"is killed after {seconds} s (terminationGracePeriodSeconds), within the drain of {drain:g} s ({DRAIN})"


def scratch(objects: Objects, pod: Pod) -> Lines:
    if pod.name == "submitter":
        return
    container = pod.spec["containers"][0]
    mounted = {it["mountPath"] for it in container.get("volumeMounts", [])}
    found = environment(objects, container)
    if found.get("TMPDIR") not in mounted:
        yield "TMPDIR is no volume"
    if found.get("RAY_TMPDIR") != "/tmp":
        yield "Ray's logs follow TMPDIR; the autoscaler's container looks for them under /tmp/ray"


def spilling(objects: Objects) -> Lines:
    for spec in clusters(objects):
        for group in (spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])):
            mounts = group["template"]["spec"]["containers"][0].get("volumeMounts", [])
            if group["rayStartParams"].get("object-spilling-directory") not in {it["mountPath"] for it in mounts}:
                yield "the object store spills into no volume (object-spilling-directory)"


def head_without_tasks(objects: Objects) -> Lines:
    for spec in clusters(objects):
        if spec["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
            yield "head: takes tasks; the driver and Ray Train's controller need it (rayStartParams.num-cpus)"


def gpus_of_fixed_size(objects: Objects) -> Lines:
    for spec in clusters(objects):
        for it in spec.get("workerGroupSpecs", []):
            if "nvidia.com/gpu" in it["template"]["spec"]["containers"][0]["resources"].get("limits", {}):
                counts = {it.get(name) for name in ("replicas", "minReplicas", "maxReplicas")}
                if len(counts) != 1:
                    yield f"{it['groupName']}: a training needs all its workers at once, and the group is scaled"


def _matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def policies(objects: Objects) -> Lines:
    """Every pod is under a policy for both ways, every policy meets a pod, and pods of a run reach each other."""
    found, every = of_kind(objects, "NetworkPolicy"), list(pods(objects))
    for policy in found:
        if not any(_matches(policy["spec"]["podSelector"], pod.labels) for pod in every):
            yield f"NetworkPolicy {policy['metadata']['name']}: its podSelector matches no pod"
    for pod in every:
        over = [it["spec"] for it in found if _matches(it["spec"]["podSelector"], pod.labels)]
        for way, peers in (("Ingress", "from"), ("Egress", "to")):
            if not any(way in it["policyTypes"] for it in over):
                yield f"{pod.name}: no NetworkPolicy for {way}"
            rules = [rule for it in over for rule in it.get(way.lower(), [])]
            own = [
                peer["podSelector"] for rule in rules for peer in rule.get(peers, []) if set(peer) == {"podSelector"}
            ]
            for other in every:
                if not any(_matches(it, other.labels) for it in own):
                    yield f"{pod.name}: cannot reach {other.name}, or be reached by it"


def monitors(objects: Objects) -> Lines:
    """Every PodMonitor meets a pod, and each port that it names is one of that pod's."""
    every = [it for it in pods(objects) if it.name != "submitter"]
    for monitor in of_kind(objects, "PodMonitor"):
        met = [pod for pod in every if _matches(monitor["spec"]["selector"], pod.labels)]
        if not met:
            yield f"PodMonitor {monitor['metadata']['name']}: its selector matches no pod"
        for end in monitor["spec"]["podMetricsEndpoints"]:
            ports = {port.get("name") for pod in met for it in pod.containers for port in it.get("ports", [])}
            if end["port"] not in ports:
                yield f"PodMonitor {monitor['metadata']['name']}: no pod has a port {end['port']}"


def written_secrets(objects: Objects) -> Lines:
    for it in of_kind(objects, "Secret"):
        yield f"Secret {it['metadata']['name']} stands in the manifests; make it with kubectl create secret"


OF_PODS: tuple[Callable[[Objects, Pod], Lines], ...] = (
    image,
    literal_secret,
    user,
    api_token,
    service_account,
    resources,
    volumes,
    storage,
    references,
    grace,
    scratch,
)
OF_ALL: tuple[Callable[[Objects], Lines], ...] = (
    spilling,
    head_without_tasks,
    gpus_of_fixed_size,
    policies,
    monitors,
    written_secrets,
)
