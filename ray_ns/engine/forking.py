"""``ray-ns run --fork``: the same run with something changed, begun from what another run has recorded."""

from typing import Any

from ray_ns.config import Config, Settings
from ray_ns.corpora.corpus import Corpus, Shard
from ray_ns.engine import preflight
from ray_ns.engine.places import as_path
from ray_ns.errors import InputError
from ray_ns.observe import Reporter
from ray_ns.store import layout
from ray_ns.store.fork import ForkedStore, chain, open_run
from ray_ns.store.objects import ObjectStore
from ray_ns.store.status import existing

DRAWN_BY = ("run.seed:", "data.held_out:")  # the settings that decide which images are held out


def open_or_fork(url: str, other: str | None, seconds: float) -> ObjectStore:
    """The store of the run at ``url``; one that has not begun is forked from the run ``other``, if that is given.

    Writes nothing: ``layout.begin`` does. Raises ``InputError`` where the run cannot be a fork of ``other``.
    """
    store = open_run(url, seconds)
    if other is None:
        return store
    try:
        source = open_run(existing(other), seconds)
    except InputError as error:
        raise InputError(f"--fork {error}") from error
    begun = layout.read(store, layout.RUN) is not None
    if isinstance(store, ForkedStore):
        if as_path(store.other.url) != as_path(source.url):
            raise InputError(
                f"--fork {source.url}: {store.url} was forked from {store.other.url}. Leave --fork out to go on with "
                f"it, or give a new run.dir."
            )
        return store
    if as_path(store.url) in {as_path(it.url) for it in chain(source)}:
        raise InputError(f"--fork {source.url}: that is the run.dir itself, or was forked from it. Give a new run.dir.")
    if begun:
        raise InputError(
            f"--fork {source.url}: {store.url} has begun already, and not as a fork. Give a new run.dir, or leave "
            f"--fork out to go on with it."
        )
    if "run" not in (layout.settings(source) or {}):
        raise InputError(f"--fork {source.url}: that is no run of 'ray-ns run'. Give the run.dir of one.")
    return ForkedStore(store, source)


def source(store: ObjectStore) -> ObjectStore:
    """Where the run's format, corpora and decisions are recorded: in the other run until a fork has begun."""
    begun = layout.read(store, layout.RUN) is not None
    return store.other if isinstance(store, ForkedStore) and not begun else store


def scan(
    config: Config, generations: list[dict[str, Any]], of_other: bool, reporter: Reporter, grow: bool
) -> tuple[dict[str, Corpus], list[dict[str, Any]]]:
    """The run's corpora, and those ``generations`` of them that it goes by.

    ``of_other``: the generations are those of the run that this one is forked from. Its labelled, validation and test
    images must be the same. Another pool is taken as it is, with a warning; then no generation counts.
    """
    known = {name: [Shard(**it) for it in shards] for name, shards in (generations[-1] if generations else {}).items()}
    try:
        return preflight.scan_corpora(config, known, reporter, grow), generations
    except InputError as error:
        if not of_other:
            raise
        known.pop("pool")
        try:
            corpora = preflight.scan_corpora(config, known, reporter, grow)
        except InputError as wrong:
            raise InputError(
                f"{wrong} A fork needs the labelled, validation and test images of the run that it is forked from."
            ) from wrong
        reporter.warn(f"not the pool of the run that this one is forked from, so it is labelled anew: {error}")
        return corpora, []


def tell_of_division(other: ObjectStore, settings: Settings, config: Config, reporter: Reporter) -> None:
    """Tell that the ``other`` run's held-out images stay, where a run from nothing would draw others."""
    held_out = [name for name in ("validation", "test") if getattr(config.data, name) is None]
    draws = [it for it in settings.differences(layout.settings(other) or {}, config) if it.startswith(DRAWN_BY)]
    if held_out and draws:
        reporter.note(f"the {' and '.join(held_out)} images stay those of {other.url}, though {'; '.join(draws)}")
