"""``ray-ns check``: refuse what ``run`` would refuse, then try one step of every stage on the bench."""

import time
from collections.abc import Iterator, Sequence

from ray_ns.artifacts.network import GIVEN
from ray_ns.config import Config, Settings, check_schedules
from ray_ns.config.read import load
from ray_ns.engine import estimate, overlap, precision, preflight, sample, stages, teachers
from ray_ns.engine.bench import Bench, Finding
from ray_ns.engine.places import check_given
from ray_ns.engine.run import Run
from ray_ns.engine.stages import calibrate
from ray_ns.errors import InputError
from ray_ns.images.decode import Reason
from ray_ns.models.files import CONFIG
from ray_ns.models.given import described
from ray_ns.observe import Reporter
from ray_ns.store import layout
from ray_ns.store.lease import Lease
from ray_ns.store.objects import open_store

LOOKED_AT = 16  # images of each corpus


def check(path: str, overrides: Sequence[str]) -> Iterator[Finding]:
    """Refuse what ``run`` would refuse, then read some images and do a step of each stage.

    A training step is one worker's share of the real one and a slice is a real slice, so seconds and memory are what
    a worker will meet; the rates are those of one step, a little low. Raises ``InputError`` for whatever cannot run.
    """
    config = load(path, overrides)
    check_given(path, overrides, config)
    store = open_store(config.run.dir, config.cluster.store_seconds)
    record = layout.record(store)
    if record is None:
        check_schedules(config)
    settings = Settings.of_run(record, Config)
    config, automatic = precision.decide(settings.completed(config), layout.settings(store))
    config = teachers.decide(config, layout.settings(store))
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
    calibrate.check(run)
    given = teachers.check(run)
    bench = Bench(config, run.corpora, given.get(GIVEN))
    for name, corpus in run.corpora.items():
        if corpus.shards:
            yield _look(bench, name)
    shows, figures = preflight.what_shows(run)
    yield Finding("gains", shows, figures)
    figures = {}
    if GIVEN in given:
        figures["teacher"] = told = described(given[GIVEN].files[CONFIG])
        yield Finding("teacher", f"{told['model']}, {told['parameters']:,} parameters, is given, not trained", told)
    for found in probes(bench):
        figures[found.what] = found.figures
        yield found
    whole = estimate.in_all(config, run.corpora, figures)
    yield Finding("in all", estimate.in_words(whole), whole)


def probes(bench: Bench) -> Iterator[Finding]:
    """One step of each stage, in the order of a run: turn 0 gives the teacher, turn 1 its labels and the students."""
    for turn in (0, 1):
        for stage in stages.TURN:
            yield from stage.probe(bench, turn)


def _look(bench: Bench, name: str) -> Finding:
    """Decode the first images of a corpus."""
    corpus, encoded = bench.corpora[name], bench.first(name, LOOKED_AT).encoded
    began = time.monotonic()
    reasons = [str(found) for found in map(bench.decode, encoded) if isinstance(found, Reason)]
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
