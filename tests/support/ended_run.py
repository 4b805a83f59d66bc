"""A run that has ended, of a network that is given: real records by the real store, without Ray or a training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.settings import MINIMAL

from ray_ns.artifacts.network import fed_facts
from ray_ns.artifacts.report import REPORT, report_of
from ray_ns.config import Config, Data, Settings
from ray_ns.corpora.corpus import Corpus
from ray_ns.export import best
from ray_ns.models.files import WEIGHTS
from ray_ns.seals import canonical, sha256
from ray_ns.store import commit, hints, layout
from ray_ns.store.commit import Commit, Output
from ray_ns.store.objects import LocalStore


def free() -> None:
    """A fence nobody has run into."""


def ended_run(
    folder: Path,
    data: Data,
    files: Mapping[str, bytes],
    names: Sequence[str] | None,
    test: Corpus | None = None,
    fed: Data | None = None,
) -> LocalStore:
    """A run in ``folder`` whose teacher is the network of ``files`` and the best, with ``best/``; ``test``: images.

    ``fed``: how that network is fed, where not as ``data`` says.
    """
    store = LocalStore(folder)
    config = Config.model_validate({**MINIMAL, "data": data.model_dump()})
    seen = {name: [vars(shard) for shard in test.shards] if test else [] for name in ("test", "validation")}
    classes = layout.Classes(data.classes, tuple(names) if names else None)
    corpora = {"labelled": [], "pool": [], **seen}
    layout.begin(store, Settings().of(config), corpora, free, classes)
    if test is not None:
        hints.write(store, layout.PLACES, {"test": test.root})
    network = _stage(store, "rounds/0/train", dict(files), {"parameters": 1, **fed_facts(data, fed or data)})
    scores = {"images": 30, "unreadable": 0, "top1": 0.9, "calibration_error": 0.02}
    _stage(store, "rounds/0/evaluate", {}, {"validation": scores, "test": scores}, network=network.digest)
    row = {"round": "rounds/0", "model": "resnet10t", "parameters": 1, "kept": 0, "duplicates": 0, "best": True}
    value = {
        "rounds": [{**row, "validation_top1": 0.9, "test_top1": 0.9}],
        "best": "rounds/0",
        "best_model": network.parts[0].objects[WEIGHTS].key.rpartition("/")[0],
        "best_weights_sha256": sha256(files[WEIGHTS]),
    }
    _stage(store, "report", {REPORT: canonical(value)}, {})
    report = report_of(store)
    assert report is not None
    best.put(store, report, free)
    return store


def _stage(store: LocalStore, place: str, objects: dict[str, bytes], summary: dict[str, Any], **inputs: str) -> Commit:
    def work(output: Output) -> tuple[dict[str, Any], int]:
        output.publish(0, objects, {})
        return summary, 1

    return commit.ensure(store, place, inputs, work, free)
