"""What a run needs of a cluster: CPUs, GPUs and room in the object store."""

import os

from ray_ns.config import Config
from ray_ns.errors import InputError

# Slices per CPU that the object store holds in the layout ``tasks``. Ray Data uses half of the store, gives each of the
# operators a part, and lets a task start only where two slices more have room: with less, CPUs idle.
SLICES_PER_CPU = 7


def local_cpus(config: Config) -> int:
    """Logical CPUs of a local cluster: ``cluster.cpus``, or all this process may use; two where there is but one."""
    return config.cluster.cpus or max(2, len(os.sched_getaffinity(0)))


def object_store_mb(config: Config, given: int = 0) -> int:
    """Megabytes of a local cluster's object store: ``cluster.object_store_mb``, or what the layout needs.

    ``given``: side in pixels of the images of a teacher that is given.
    """
    if config.cluster.object_store_mb is not None:
        return config.cluster.object_store_mb
    if config.label.layout_here == "actor":
        return 256
    recipes = config.recipes().values() if "teacher" in config.model_fields_set else ()  # a prediction trains nothing
    sides = [recipe.in_the_end(config.data).size for recipe in recipes] or [config.data.size]
    slice_bytes = config.label.slice_rows * max(given, *sides) ** 2 * config.data.channels
    return 256 + -(-SLICES_PER_CPU * local_cpus(config) * slice_bytes // 2**20)


def check_resources(config: Config, cpus: float, gpus: float) -> None:
    """Raise ``InputError`` where the cluster's CPUs or GPUs cannot hold the actors, the readers and the workers.

    Ray Data hangs in silence where teacher actors take every CPU: the tasks that read the pool never start.
    """
    label, cluster = config.label, config.cluster
    needs = [
        ("label.actors", label.actors, "label.threads", label.threads, 1, "and 1 for the reader"),
        ("cluster.train_workers", cluster.worker_counts[0], "cluster.train_threads", cluster.train_threads, 0, ""),
    ]
    for many, count, each, threads, extra, why in needs:
        need = count * threads + extra
        if need > cpus:
            raise InputError(
                f"{many} x {each} = {count} x {threads} CPUs {why}".rstrip()
                + f" make {need}, the cluster has {cpus:g}. Lower {many} or {each}, or raise cluster.cpus."
            )
    for many, need_gpus in {
        "label.actors x label.gpus_per_actor": label.actors * label.gpus_per_actor,
        "cluster.train_workers x cluster.train_gpus": cluster.worker_counts[0] * cluster.train_gpus,
    }.items():
        if need_gpus > gpus:
            raise InputError(f"{many} = {need_gpus:g} GPUs, the cluster has {gpus:g}. Lower one of them.")
