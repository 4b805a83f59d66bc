"""Everything that can be refused before anything expensive starts, is refused here."""

import os
import tempfile
from pathlib import Path

import numpy as np

from ray_ns.config import Config
from ray_ns.engine.session import Session, check_resources, local_cpus
from ray_ns.errors import InputError
from ray_ns.images.corpus import Corpus, Shard, count_per_class

LABELLED = ("labelled", "validation", "test")


def scan_corpora(config: Config, known: dict[str, list[Shard]]) -> dict[str, Corpus]:
    """The run's corpora by name. ``known``: the shards an earlier start of the run saw, with their ordinals."""
    data = config.data
    corpora = {}
    for name in (*LABELLED, "pool"):
        label_column = data.label_column if name in LABELLED else None
        try:
            corpora[name] = Corpus.scan(getattr(data, name), data.image_column, label_column, known.get(name, ()))
        except InputError as error:
            raise InputError(f"data.{name}: {error}") from error
    return corpora


def check_writable(url: str) -> None:
    """Raise ``InputError`` where the run directory cannot be made or written."""
    if "://" in url:
        return  # the first write says it, before anything expensive
    folder = Path(url)
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"run.dir={url}: {folder} cannot be written ({error.strerror}). Give another run.dir."
        ) from error


def check_models(config: Config) -> list[str]:
    """Build every network without memory for its weights; what is no mistake but unlike the method is returned.

    Raises ``InputError`` where a network, its first weights, its optimiser or its fine-tuning cannot be had.
    """
    from ray_ns.models import zoo
    from ray_ns.train.optim import optimizer

    sizes = []
    for place, recipe in config.recipes().items():
        try:
            network = zoo.check(recipe.model, config.data)
            sizes.append(zoo.parameters(network))
            optimizer(network, recipe)
            zoo.pretrained_file(recipe.model)
            if recipe.tuning is not None:
                data = config.at_size(recipe.finetune.size or config.data.size).data
                tuned = zoo.check(recipe.model, data)
                zoo.freeze(tuned, recipe.finetune.freeze)
                optimizer(tuned, recipe.tuning)
        except InputError as error:
            raise InputError(f"{place}.{error}") from error
    return [
        f"{place}.model: {after:,} parameters, its teacher has {before:,}. Noisy Student wants an equal or larger "
        f"student; a smaller one is distillation."
        for place, before, after in zip(list(config.recipes())[1:], sizes, sizes[1:], strict=False)
        if after < before
    ]


def check(session: Session) -> None:
    """Raise ``InputError`` for what would fail later: data, models, resources of a local cluster."""
    config = session.config
    for name in LABELLED:
        counts = count_per_class(session.corpora[name].labels(config.data.classes), config.data.classes)
        if not counts.sum():
            raise InputError(f"data.{name}: {getattr(config.data, name)} holds no image")
        missing = np.flatnonzero(counts == 0)
        if name == "labelled" and len(missing):
            raise InputError(
                f"data.labelled: no labelled image of class {', '.join(map(str, missing[:10]))} (data.classes = "
                f"{config.data.classes}). Add some, or lower data.classes and renumber the labels."
            )
    pool = session.corpora["pool"]
    if not any(sum(pool.open(shard).group_rows) for shard in pool.shards):
        raise InputError(f"data.pool: {config.data.pool} holds no image")
    for warning in check_models(config):
        session.reporter.warn(warning)
    if config.cluster.address is None and "RAY_ADDRESS" not in os.environ:
        import torch

        gpus = torch.cuda.device_count() if config.cluster.gpus is None else config.cluster.gpus
        check_resources(config, local_cpus(config), gpus)
