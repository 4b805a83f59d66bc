"""One step of every stage, in this process, without Ray and without a write: ``ray-ns check``."""

import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ray_ns.config import Config, Training
from ray_ns.config.read import load
from ray_ns.corpora.corpus import Corpus, image_ids
from ray_ns.engine import estimate, overlap, precision, preflight, sample
from ray_ns.engine.run import Run, local_cpus
from ray_ns.errors import InputError
from ray_ns.evaluate.metrics import metrics
from ray_ns.images.decode import Decode, Reason
from ray_ns.labels import schema
from ray_ns.labels.selection import passes, rules, terms
from ray_ns.observe import Reporter, in_time
from ray_ns.store import layout
from ray_ns.store.lease import Lease
from ray_ns.store.objects import open_store
from ray_ns.train.selected import Selected

if TYPE_CHECKING:
    import torch

    from ray_ns.train.state import TrainState

LOOKED_AT = 16  # images of each corpus


@dataclass(frozen=True)
class Finding:
    """What one look found: a line for people, figures for machines."""

    what: str
    line: str
    figures: dict[str, Any]


def check(path: str, overrides: Sequence[str]) -> Iterator[Finding]:
    """Refuse what ``run`` would refuse, then read some images and do a step of each stage.

    A training step is one worker's share of the real one and a slice is a real slice, so seconds and memory are what
    a worker will meet; the rates are those of one step, a little low. Raises ``InputError`` for whatever cannot run.
    """
    config = load(path, overrides)
    store = open_store(config.run.dir, config.cluster.store_seconds)
    config, automatic = precision.decide(config, layout.settings(store))
    if automatic:
        yield Finding("precision", f"auto is here {precision.in_words(automatic, config)}", automatic)
    reporter = Reporter("plain")
    corpora = preflight.scan_corpora(config, {}, reporter)
    config, names = preflight.with_classes(config, corpora)
    preflight.check_writable(config.run.dir)
    run = Run(config, store, corpora, (len(corpora["pool"].shards),), Lease(store), reporter, names)
    preflight.check(run)
    sample.check_pool(run)
    overlap.divide(run)
    for name, corpus in run.corpora.items():
        yield _look(config, name, corpus)
    figures = {}
    for found in _Steps(config, run.corpora).all():
        figures[found.what] = found.figures
        yield found
    whole = estimate.in_all(config, run.corpora, figures)
    yield Finding("in all", estimate.in_words(whole), whole)


def _look(config: Config, name: str, corpus: Corpus) -> Finding:
    """Decode the first images of a corpus."""
    decode = Decode(config.data.size, config.data.channels, config.data.fit)
    _, _, _, encoded = _first(corpus, LOOKED_AT)
    began = time.monotonic()
    reasons = [str(found) for found in map(decode, encoded) if isinstance(found, Reason)]
    seconds = time.monotonic() - began
    if len(reasons) == len(encoded):
        raise InputError(
            f"data.{name}: none of the first {len(encoded)} images can be read ({', '.join(set(reasons))})"
        )
    figures = {
        "shards": len(corpus.shards),
        "bytes": sum(shard.size for shard in corpus.shards),
        "looked_at": len(encoded),
        "unreadable": len(reasons),
        "decode_img_s": round(len(encoded) / seconds, 1),
    }
    bad = f", {len(reasons)} cannot be read ({', '.join(sorted(set(reasons)))})" if reasons else ""
    line = (
        f"{figures['shards']} shards, {figures['bytes'] / 1e6:,.1f} MB; of {len(encoded)} images"
        f"{bad or ' all can be read'}, {figures['decode_img_s']:,.0f} a second and process"
    )
    return Finding(f"data.{name}", line, figures)


def _first(corpus: Corpus, rows: int) -> tuple[np.ndarray, int, int, list[bytes | None]]:
    """(ids int64, place of the shard, row group, encoded images) of the first row group with rows, ``rows`` at most."""
    for place, shard in enumerate(corpus.shards):
        reader = corpus.open(shard)
        first = 0
        for group, count in enumerate(reader.group_rows):
            if count:
                encoded = reader.images(group).slice(0, rows).to_pylist()
                return image_ids(shard.ordinal, first + np.arange(len(encoded))), place, first, encoded
            first += count
    raise InputError(f"{corpus.root}: holds no image")


class _Steps:
    """One step of each stage, each on what the one before gave."""

    def __init__(self, config: Config, corpora: dict[str, Corpus]) -> None:
        import torch

        self._config, self._corpora = config, corpora
        self._cuda = torch.cuda.is_available()
        torch.set_num_threads(config.cluster.train_threads)

    def all(self) -> Iterator[Finding]:
        teacher, found = self._train("teacher", self._config.teacher, None)
        yield found
        labels, found = self._label(teacher)
        yield found
        chosen, found = self._select(labels)
        yield found
        yield self._evaluate(teacher)
        del teacher
        for place, recipe in list(self._config.recipes().items())[1:]:
            yield self._train(place, recipe, chosen)[1]

    def _train(self, place: str, recipe: Training, chosen: Selected | None) -> tuple["TrainState", Finding]:
        from ray_ns.methods.objectives import objective_of
        from ray_ns.models.zoo import parameters
        from ray_ns.train.data import batches
        from ray_ns.train.sources import Sources
        from ray_ns.train.state import TrainState
        from ray_ns.train.step import Step

        config, device = self._config, self._device(bool(self._config.cluster.train_gpus))
        objective = objective_of(recipe, recipe.batch, chosen is not None)
        state = TrainState.fresh(objective, config.data, 0, device)
        sources = Sources(recipe, config.data, self._corpora, chosen)
        steps = sources.steps(objective.sources(), 0, 0, config.cluster.worker_counts[0])
        step = Step(objective, config.data, 0, device, 0, config.cluster.train_microbatch)
        for number in range(2):  # the first one pays for what is done but once
            began = time.monotonic()
            batch = next(batches(steps, number, number + 1, 0))
            read = time.monotonic() - began
            began = time.monotonic()
            loss = step(state, batch)
            seconds = time.monotonic() - began
        images = len(batch.images)
        figures = {
            "model": recipe.model.name,
            "parameters": parameters(state.kept.network),
            "images": images,
            "read_img_s": round(images / read, 1),
            "step_img_s": round(images / seconds, 1),
            "loss": round(loss, 4),
            **self._memory(device),
        }
        loaders = config.cluster.loaders(local_cpus(config) // config.cluster.worker_counts[0])
        per_step = max(seconds, read / loaders) if loaders else seconds + read
        line = (
            f"{recipe.model.name}, {figures['parameters']:,} parameters; a worker's share is {images} images a step: "
            f"read at {figures['read_img_s']:,.0f}, trained at {figures['step_img_s']:,.0f} images/s; "
            f"{recipe.steps:,} such steps take about {in_time(recipe.steps * per_step)}; "
            f"memory {self._said(figures)}"
        )
        figures |= {"step_seconds": round(per_step, 6), "size": config.data.size}
        return state, Finding(f"train {place}", line, figures)

    def _label(self, teacher: "TrainState") -> tuple[pa.Table, Finding]:
        label = self._config.label
        ids, _, _, encoded = _first(self._corpora["pool"], label.slice_rows)
        began = time.monotonic()
        images, reasons = self._decoded(encoded)
        probabilities = self._probabilities(teacher, images)
        table = schema.label_table(ids, probabilities, reasons, label.keep, min(label.top, self._config.data.classes))
        seconds = time.monotonic() - began
        figures = {
            "images": len(encoded),
            "img_s": round(len(encoded) / seconds, 1),
            "unreadable": sum(reason is not None for reason in reasons),
            **self._memory(self._device(bool(label.gpus_per_actor))),
        }
        line = (
            f"a slice of {len(encoded)} images, {figures['unreadable']} in quarantine, decoded and labelled at "
            f"{figures['img_s']:,.0f} images/s; memory {self._said(figures)}"
        )
        return table, Finding("label", line, figures)

    def _select(self, labels: pa.Table) -> tuple[Selected, Finding]:
        """The slice's own selection: K is what it gives, since no slice holds the run's."""
        config = self._config
        table = labels.filter(pa.compute.is_valid(labels["label"]))
        ids, of_class, confidence = (table[name].to_numpy() for name in ("image_id", "label", "confidence"))
        asked = terms.of_settings(
            config.select.model_copy(update={"per_class": "auto", "quotas": {}}), config.data.classes, config.run.seed
        )
        tally = passes.Tally(asked)
        tally.add(of_class, confidence)
        quota = rules.quotas(tally.counts(), asked)
        rows, copies = passes.of_one_shard(ids, of_class, confidence, quota, asked)
        over = int(quota.over.sum())
        figures = {"labels": table.num_rows, "over_threshold": over, "kept": len(rows), "copies": int(copies.sum())}
        line = (
            f"of {table.num_rows} labels {over} reach the threshold, {len(rows)} are kept; the teacher is two steps old"
        )
        if not len(rows):
            rows, copies = np.arange(table.num_rows), np.ones(table.num_rows, np.int64)
            line += ", so the student takes its step on all"
        chosen = table.take(pa.array(rows)).append_column("copies", pa.array(copies))
        return Selected([chosen]), Finding("select", line, figures)

    def _evaluate(self, network: "TrainState") -> Finding:
        config, corpus = self._config, self._corpora["validation"]
        _, place, first, encoded = _first(corpus, config.label.slice_rows)
        images, reasons = self._decoded(encoded)
        probabilities = self._probabilities(network, images)
        truth = corpus.labels(config.data.classes)[place][first : first + len(encoded)]
        predicted = np.where([reason is None for reason in reasons], probabilities.argmax(1), -1)
        found = metrics(predicted, probabilities.max(1), truth, config.data.classes)
        line = f"top-1 {found['top1']:.1%} on {len(encoded)} validation images; {1 / config.data.classes:.1%} is chance"
        return Finding("evaluate", line, {"images": len(encoded), "top1": found["top1"]})

    def _decoded(self, encoded: list[bytes | None]) -> tuple[np.ndarray, list[str | None]]:
        data = self._config.data
        found = [Decode(data.size, data.channels, data.fit)(it) for it in encoded]
        blank = np.zeros((data.size, data.size, data.channels), np.uint8)
        pixels = np.stack([blank if isinstance(it, Reason) else it for it in found])
        return pixels, [str(it) if isinstance(it, Reason) else None for it in found]

    def _probabilities(self, state: "TrainState", images: np.ndarray) -> np.ndarray:
        from ray_ns.models.predictor import Teacher

        label = self._config.label
        device = self._device(bool(label.gpus_per_actor))
        return Teacher(state.result, self._config.data, label.slice_rows, label.precision, device)(images)

    def _device(self, wanted: bool) -> "torch.device":
        import torch

        return torch.device("cuda" if wanted and self._cuda else "cpu")

    def _memory(self, device: "torch.device") -> dict[str, int]:
        import torch

        mb = {"memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
        if device.type == "cuda":
            mb["gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) // 2**20
        return mb

    def _said(self, figures: dict[str, Any]) -> str:
        gpu = f", GPU {figures['gpu_memory_mb']:,} MB" if "gpu_memory_mb" in figures else ""
        return f"{figures['memory_mb']:,} MB so far{gpu}"
