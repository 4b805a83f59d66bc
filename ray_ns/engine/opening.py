"""From a config file to an open run: whose it is, which corpora it has, and that it can run at all."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray_ns.config import Config, Settings, check_schedules
from ray_ns.config.read import load, with_classes
from ray_ns.engine import (
    connection,
    forking,
    more_rounds,
    overlap,
    precision,
    preflight,
    sample,
    stages,
    teachers,
    touched,
)
from ray_ns.engine.places import check_given, note_places
from ray_ns.engine.run import Run
from ray_ns.engine.stages import calibrate
from ray_ns.engine.stages.digests import known_images
from ray_ns.observe import Mode, Reporter
from ray_ns.store import layout
from ray_ns.store.commit import find_commit
from ray_ns.store.fork import open_run
from ray_ns.store.lease import Lease
from ray_ns.store.objects import ObjectStore
from ray_ns.store.status import existing


@contextmanager
def drive(
    given: str | Path | Mapping[str, Any],
    overrides: Sequence[str],
    mode: Mode,
    grow: bool = False,
    until: str | None = None,
    fork: str | None = None,
) -> Iterator[Run]:
    """The run of a config, opened. A new run is written down; a finished one is opened for reading only.

    ``grow``: take in shards that the pool has gained; else they are told of and left out. ``until``: the stage of
    round 1 that ends the run early. ``fork``: the run from which a new one takes what it has made from equal inputs.

    Raises ``InputError`` for whatever cannot run, before anything is written and before a local cluster starts.
    """
    config = _load(given, overrides)
    if until is not None:
        stages.check_until(until, config)
    store = forking.open_or_fork(config.run.dir, fork, config.cluster.store_seconds)
    source = forking.source(store)
    record = layout.record(source)
    settings = Settings.of_run(record, Config)
    format = record["format"] if record else layout.FORMAT
    config, automatic = precision.decide(settings.completed(config), layout.settings(source))
    config = teachers.decide(config, layout.settings(store))
    named = settings.of(config)
    begun = _is_begun(store, settings, config)
    more = begun and more_rounds.more(layout.settings(store) or {}, config)
    reporter = Reporter(mode)
    if automatic and record is None:
        reporter.note(f"precision auto, decided for the whole run: {precision.in_words(automatic, config)}")
    corpora, pinned = forking.scan(config, layout.generations(source), source is not store, reporter, grow)
    if source is not store:
        forking.tell_of_division(source, settings, config, reporter)
    config, names = preflight.with_classes(config, corpora)
    pools = list(dict.fromkeys([*(len(generation["pool"]) for generation in pinned), len(corpora["pool"].shards)]))
    if more and len(pools) == len(pinned):
        more_rounds.refuse_none(store, config)
    continued = config.run.rounds if more or layout.continued(store) else None
    with Run(
        *(config, store, corpora, tuple(pools), Lease(store), reporter, names, until, settings),
        format=format,
        continued=continued,
    ) as run:
        touched.compare(run, source)
        if find_commit(store, f"{run.place}{run.ending}{stages.Report.name}") is None:
            preflight.check_writable(store.url)
            preflight.check(run)
            run.join()
        if not pinned:
            sample.check_pool(run)
        found = {} if pinned or record is not None else overlap.divide(run)
        if not begun:
            _begin(run, named, pinned)
            known_images(run, found)
        _grow(run, len(pools) > max(len(pinned), 1), more)
        note_places(store, corpora)
        yield run


def _load(given: str | Path | Mapping[str, Any], overrides: Sequence[str]) -> Config:
    """The config. Raises ``InputError`` where it cannot be a run of this process."""
    config = load(given, overrides)
    check_given(given, overrides, config)
    connection.refuse_connected()
    return config


def _is_begun(store: ObjectStore, settings: Settings, config: Config) -> bool:
    """Whether the run was begun with this config. Raises ``InputError`` for what only a new one is refused for."""
    begun = layout.check_owner(store, lambda record: more_rounds.differences_but_more(settings, record, config))
    if not begun:
        check_schedules(config)
    return begun


def _begin(run: Run, named: Mapping[str, Any], pinned: Sequence[Mapping[str, Any]]) -> None:
    """Write the run down, and say what gain it can show; refused is a temperature that could not be found.

    ``pinned``: the corpora by which it goes, of each generation; empty where they are new.
    """
    calibrate.check(run)
    given = teachers.check(run)
    run.reporter.note(preflight.what_shows(run)[0])
    first, *later = pinned or [_seen(run)]
    classes = layout.Classes(run.config.data.classes, run.class_names)
    layout.begin(run.store, named, first, run.lease.check, classes, run.format, later)
    teachers.take(run, given)


def _grow(run: Run, pool: bool, rounds: bool) -> None:
    """Write down that the run goes on with a larger pool, or for more rounds."""
    if pool:
        layout.grow(run.store, _seen(run), len(run.pools), run.lease.check)
    if rounds:
        layout.go_on(run.store, run.config.run.rounds, run.lease.check)


def _seen(run: Run) -> dict[str, Any]:
    return {name: [vars(shard) for shard in corpus.shards] for name, corpus in run.corpora.items()}


@contextmanager
def reopen(path: str, overrides: Sequence[str], mode: Mode) -> Iterator[Run]:
    """A run that has begun, opened, for stages that look at no image; its ``select`` settings may be others."""
    config = _load(path, overrides)
    store = open_run(existing(config.run.dir), config.cluster.store_seconds)
    record = layout.record(store)
    settings = Settings.of_run(record, Config)
    format = record["format"] if record else layout.FORMAT
    config, _ = precision.decide(settings.completed(config), layout.settings(store))
    config = teachers.decide(config, layout.settings(store))
    layout.check_owner(store, lambda record: _differences_but_select(settings, record, config))
    classes = layout.classes(store)
    config = with_classes(config, classes.count)
    pools = tuple(len(generation["pool"]) for generation in layout.generations(store))
    with Run(
        config, store, {}, pools, Lease(store), Reporter(mode), classes.names, settings=settings, format=format
    ) as run:
        run.join()
        yield run


def _differences_but_select(settings: Settings, record: Mapping[str, Any], config: Config) -> list[str]:
    return [row for row in settings.differences(record, config) if not row.startswith("select.")]
