"""Where a command reads and writes: one apart from the other, and what is noted of it."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, get_args

from ray_ns.config import Config, CorpusName, read
from ray_ns.corpora import origins
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.connection import LOCAL
from ray_ns.errors import InputError
from ray_ns.store import hints, layout
from ray_ns.store.events import EVENTS
from ray_ns.store.objects import ObjectStore

CORPORA = get_args(CorpusName)
JOBS_OWN = re.compile(r".*/(working_dir|py_modules)_files/_ray_pkg_")  # as Ray names what a job brings


def as_path(place: str) -> PurePath:
    """A folder or URL as a path to compare with others."""
    scheme, separator, rest = place.partition("://")
    if separator and scheme != "file":
        return PurePosixPath(f"{scheme}/{rest}")
    return Path(os.path.realpath(rest if separator else place))  # no error where links form a loop


def check_apart(written: str, read: str, instead: str) -> None:
    """Raise ``InputError`` where one place is inside the other. ``instead``: what the user can give."""
    one, other = as_path(read), as_path(written)
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise InputError(f"{written} and {read}: one is inside the other. Give {instead}.")


def check_given(source: str | Path | Mapping[str, Any], overrides: Sequence[str], config: Config) -> None:
    """Raise ``InputError`` where a run on a cluster of others names its directory or images from where it was started.

    ``source`` and ``overrides``: as they were given, since a ``config`` has every path from the root.
    """
    named = {
        "run.dir": config.run.dir,
        **{f"data.{name}": place for name in CORPORA if (place := getattr(config.data, name))},
    }
    check_lasting(named)
    if (config.cluster.address or os.environ.get("RAY_ADDRESS") or LOCAL) == LOCAL:
        return
    for name, said in read.relative(source, overrides).items():
        raise InputError(
            f"{name} = {said}: a path from the working directory, which is another one on each machine of a cluster. "
            f"Give a URL, or a path from / of a folder that every node mounts."
        )


def check_lasting(named: Mapping[str, str]) -> None:
    """Raise ``InputError`` where a place is inside the working directory of a Ray job. ``named``: by their settings."""
    for name, place in named.items():
        found = JOBS_OWN.match(os.path.realpath(place)) if "://" not in place else None
        if found:
            raise InputError(
                f"{name} = {place}: inside the working directory of this job, which Ray made on this node alone, names "
                f"after its content and removes. Give a URL, or a path from / of a folder that every node mounts."
            )


def check_free(store: ObjectStore, instead: str) -> None:
    """Raise ``InputError`` where files of others lie in a place in which nothing has begun."""
    if layout.read(store, layout.RUN) is None:
        ours = (layout.corpora_key(1), "driver/", EVENTS)  # which a command that was killed at its begin has left
        other_key = next((key for key in store.list("") if not key.startswith(ours)), None)
        if other_key is not None:
            raise InputError(f"{store.url} holds other files ({other_key}). Give {instead}.")


def note_places(store: ObjectStore, corpora: Mapping[str, Corpus]) -> None:
    """Write down where the corpora lie, for commands that are given the run alone. Nothing is written twice."""
    places = {name: origins.lasting(corpus.root) for name, corpus in corpora.items()}
    if hints.read(store, layout.PLACES) != places:
        hints.write(store, layout.PLACES, places)
