"""From a config file to a session on its run: whose run it is, which corpora it has, and that it can run at all."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from ray_ns import config as configs
from ray_ns.engine import preflight
from ray_ns.engine.session import Session
from ray_ns.images.corpus import Shard
from ray_ns.observe import Mode, Reporter
from ray_ns.store import run as runs
from ray_ns.store.commit import find_commit
from ray_ns.store.lease import Lease
from ray_ns.store.objects import open_store


@contextmanager
def drive(path: str, overrides: Sequence[str], mode: Mode) -> Iterator[Session]:
    """A session on the run of a config. A new run is written down; a finished one is opened for reading only.

    Raises ``InputError`` for whatever cannot run, before Ray starts and anything is written.
    """
    config = configs.load(path, overrides)
    store = open_store(config.run.dir)
    settings = configs.results_of(config)
    begun = runs.check_owner(store, settings, configs.differences)
    pinned = (runs.read(store, runs.CORPORA) or {}).get("corpora", {})
    known = {name: [Shard(**it) for it in shards] for name, shards in pinned.items()}
    corpora = preflight.scan_corpora(config, known)
    reporter = Reporter(mode)
    for name, shards in known.items():
        new = len(corpora[name].shards) - len(shards)
        if new:
            reporter.note(f"data.{name}: {new} new shards are not part of this run; a new run.dir takes them in.")
            corpora[name] = replace(corpora[name], shards=tuple(shards))
    with Session(config, store, corpora, Lease(store), reporter) as session:
        if find_commit(store, "report") is None:
            preflight.check_writable(store.url)
            preflight.check(session)
        if not begun:
            seen = {name: [vars(shard) for shard in corpus.shards] for name, corpus in corpora.items()}
            runs.begin(store, settings, seen, session.lease.check)
        yield session
