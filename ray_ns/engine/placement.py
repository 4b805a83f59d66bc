"""Where a run's work is done: the kinds of worker it has, what each asks of a node, and which nodes can hold it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray_ns.config import Config

Selector = Mapping[str, str]


@dataclass(frozen=True)
class Shape:
    """One kind of worker.

    ``name``: what one is, in words. ``count``: how many are asked for, by the setting ``setting``; of those that start
    ``together`` none starts unless so many can, of others one is enough to go on. ``cpus`` and ``gpus``: what each
    takes of its node. ``on``: the setting that names their nodes, whose labels match ``selector`` (empty: any node).
    """

    name: str
    count: int
    cpus: float
    gpus: float
    setting: str
    on: str
    selector: Selector = field(default_factory=dict)
    together: bool = False

    @property
    def in_words(self) -> str:
        """``4 training workers (2 CPUs and 1 GPU each) on nodes with ray-ns/gpu=true``."""
        asked = [amount(it, unit) for it, unit in ((self.cpus, "CPU"), (self.gpus, "GPU")) if it]
        return f"{amount(self.count, self.name)} ({' and '.join(asked)} each){on_nodes(self.selector)}"

    @property
    def needed(self) -> int:
        """The fewest that the work goes on with."""
        return self.count if self.together else 1

    @property
    def scarce(self) -> tuple[float, str]:
        """What it takes of a node that is the scarcer one, and its name: GPUs where it takes some, else CPUs."""
        return (self.gpus, "GPU") if self.gpus else (self.cpus, "CPU")


@dataclass(frozen=True)
class Node:
    """A node that lives: its address, its labels, the CPUs and GPUs that it has in all, and Ray's id of it."""

    address: str
    labels: Mapping[str, str]
    cpus: float
    gpus: float
    id: str = ""


def shapes(config: Config) -> list[Shape]:
    """The kinds of worker of a run; one task of those that read and decode is what it cannot do without."""
    return [reading(config), teaching(config), training(config)]


def reading(config: Config) -> Shape:
    """Tasks that list, read and decode images, ingest and select: as many as there is room for, one at least."""
    return Shape("CPU task", 1, 1, 0, "", "cluster.decode_on", config.cluster.decode_on or {})


def teaching(config: Config) -> Shape:
    """Teacher actors."""
    label, on = config.label, config.cluster.teachers_on or {}
    cpus = 0 if label.gpus_per_actor else label.threads
    return Shape("teacher actor", label.actors, cpus, label.gpus_per_actor, "label.actors", "cluster.teachers_on", on)


def training(config: Config) -> Shape:
    """Training workers, as many as a training begins with at least."""
    cluster, on = config.cluster, config.cluster.train_on or {}
    asked = cluster.worker_counts[0], cluster.train_threads, cluster.train_gpus
    return Shape("training worker", *asked, "cluster.train_workers", "cluster.train_on", on, together=True)


def options(selector: Selector | None, local: bool) -> dict[str, Any]:
    """The options of a Ray task or actor that goes where ``selector`` says; none on a ``local`` cluster, one node."""
    return {"label_selector": dict(selector)} if selector and not local else {}


def unused(config: Config) -> str | None:
    """That a local cluster heeds no labels, where the config names some; else None."""
    named = [shape.on for shape in shapes(config) if shape.selector]
    return f"{', '.join(named)}: the cluster of this process is one machine, which does everything" if named else None


def alive() -> list[Node]:
    """The nodes of the cluster that this process is connected to, without those that are gone."""
    import ray

    return [
        Node(
            it["NodeManagerAddress"],
            it["Labels"],
            it["Resources"].get("CPU", 0.0),
            it["Resources"].get("GPU", 0.0),
            it["NodeID"],
        )
        for it in ray.nodes()
        if it["Alive"]
    ]


def waiting_groups() -> list[list[dict[str, float]]]:
    """What each placement group of the cluster asks for that has no place yet: resources of each of its parts."""
    from ray.util import placement_group_table

    groups = placement_group_table().values()
    return [list(it["bundles"].values()) for it in groups if it["state"] in {"PENDING", "RESCHEDULING"}]


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


def missing(shape: Shape, nodes: Iterable[Node]) -> str | None:
    """``4 CPUs wanted, 2 there, for 4 training workers``, where so many that it could go on have no room; else None."""
    there = held_by_all(shape, nodes)
    return None if there >= shape.needed else wanted(shape, f"{there * shape.scarce[0]:g} there")


def wanted(shape: Shape, there: str) -> str:
    """What so many workers that it could go on want, and what is ``there`` of it, in words."""
    each, unit = shape.scarce
    workers = f"{amount(shape.needed, shape.name)}{on_nodes(shape.selector)}"
    return f"{amount(shape.needed * each, unit)} wanted, {there}, for {workers}"


def amount(number: float, unit: str) -> str:
    """``1 CPU``, ``2 CPUs``."""
    return f"{number:g} {unit}" if number == 1 else f"{number:g} {unit}s"


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
