"""Where a run's work is done: the kinds of worker it has, what each asks of a node, and which nodes can hold it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray_ns.config import Config

Selector = Mapping[str, str]


@dataclass(frozen=True)
class Shape:
    """One kind of worker.

    ``name``: what they are, in words. ``count``: the fewest that the work begins with. ``cpus`` and ``gpus``: what each
    takes of its node. ``setting``: where the count comes from. ``on``: the setting that names their nodes, whose labels
    match ``selector`` (empty: any node).
    """

    name: str
    count: int
    cpus: float
    gpus: float
    setting: str
    on: str
    selector: Selector = field(default_factory=dict)

    @property
    def in_words(self) -> str:
        """``4 training workers (2 CPUs and 1 GPU each) on nodes with ray-ns/gpu=true``."""
        asked = [f"{it:g} {unit}{'' if it == 1 else 's'}" for it, unit in self._resources if it]
        return f"{self.count} {self.name} ({' and '.join(asked)} each){on_nodes(self.selector)}"

    @property
    def _resources(self) -> tuple[tuple[float, str], ...]:
        return (self.cpus, "CPU"), (self.gpus, "GPU")


@dataclass(frozen=True)
class Node:
    """A node that lives: its address, its labels, and the CPUs and GPUs that it has in all."""

    address: str
    labels: Mapping[str, str]
    cpus: float
    gpus: float


def shapes(config: Config) -> list[Shape]:
    """The kinds of worker of a run; one task of those that read and decode is what it cannot do without."""
    label, cluster = config.label, config.cluster
    teacher_cpus = 0 if label.gpus_per_actor else label.threads
    return [
        Shape("task that reads images", 1, 1, 0, "", "cluster.decode_on", cluster.decode_on or {}),
        Shape(
            _many("teacher actor", label.actors),
            label.actors,
            teacher_cpus,
            label.gpus_per_actor,
            "label.actors",
            "cluster.teachers_on",
            cluster.teachers_on or {},
        ),
        Shape(
            _many("training worker", cluster.worker_counts[0]),
            cluster.worker_counts[0],
            cluster.train_threads,
            cluster.train_gpus,
            "cluster.train_workers",
            "cluster.train_on",
            cluster.train_on or {},
        ),
    ]


def options(selector: Selector | None, local: bool) -> dict[str, Any]:
    """The options of a Ray task or actor that goes where ``selector`` says; none on a ``local`` cluster, one node."""
    return {"label_selector": dict(selector)} if selector and not local else {}


def alive() -> list[Node]:
    """The nodes of the cluster that this process is connected to, without those that are gone."""
    import ray

    return [
        Node(it["NodeManagerAddress"], it["Labels"], it["Resources"].get("CPU", 0.0), it["Resources"].get("GPU", 0.0))
        for it in ray.nodes()
        if it["Alive"]
    ]


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether a node with those labels is one that the selector asks for, as Ray decides it."""
    return all(_matches(asked, labels.get(key)) for key, asked in selector.items())


def held(shape: Shape, node: Node) -> int:
    """How many workers of that shape the node holds when it is free; ``shape.count`` at most."""
    if not matches(shape.selector, node.labels):
        return 0
    fits = [int((has + 1e-9) // asks) for asks, has in ((shape.cpus, node.cpus), (shape.gpus, node.gpus)) if asks]
    return min([shape.count, *fits])


def held_by_all(shape: Shape, nodes: Iterable[Node]) -> int:
    """How many workers of that shape the nodes hold when they are free; ``shape.count`` at most."""
    return min(shape.count, sum(held(shape, node) for node in nodes))


def on_nodes(selector: Selector) -> str:
    """`` on nodes with ray-ns/gpu=true``; nothing for any node."""
    if not selector:
        return ""
    return f" on nodes with {', '.join(f'{key}={asked}' for key, asked in selector.items())}"


def _matches(asked: str, value: str | None) -> bool:
    bare = asked.removeprefix("!")
    inside = bare.startswith("in(") and bare.endswith(")")
    values = [it.strip() for it in bare[3:-1].split(",")] if inside else [bare]
    return (value in values) != asked.startswith("!")


def _many(name: str, count: int) -> str:
    return name if count == 1 else f"{name}s"
