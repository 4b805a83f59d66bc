"""A store in a folder, and leases on it that are released when the test ends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.leases import Take

from ray_ns.store.lease import Lease
from ray_ns.store.objects import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


@pytest.fixture
def new(store: LocalStore) -> Iterator[Take]:
    made: list[Lease] = []

    def lease(on: Any = None, **how: Any) -> Lease:
        made.append(Lease(on or store, **how))
        return made[-1]

    yield lease
    for lease_ in made:
        lease_.release()
