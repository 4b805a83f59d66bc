"""What a forked run takes from the one it was forked from: each stage that was made there from the same inputs."""

from collections.abc import Callable, Sequence
from typing import Any

from ray_ns.config import changes
from ray_ns.errors import IntegrityError
from ray_ns.observe import Reporter
from ray_ns.seals import digest
from ray_ns.store import commit
from ray_ns.store.commit import Commit
from ray_ns.store.fork import ForkedStore
from ray_ns.store.objects import ObjectStore

NAMED = 6  # stages, or inputs that differ, that a line names


class Taking:
    """What a run takes from the one it was forked from: nothing where it was not. Tells what it took, in a line."""

    def __init__(self, store: ObjectStore, reporter: Reporter) -> None:
        self._store = store
        self._other = store.other if isinstance(store, ForkedStore) else None
        self._reporter = reporter
        self._untold: list[str] = []
        self._explained = False

    def find(self, prefix: str, inputs: dict[str, Any]) -> Commit | None:
        """The other run's commit of the stage at ``prefix`` where it was made from the same inputs, else None.

        Tells, at the first stage that is not taken, what was, and which inputs of this one differ.
        """
        if self._other is None:
            return None
        found = self._committed(prefix)
        if found is not None and found.inputs == digest(inputs):
            self._untold.append(prefix)
            return found
        self.tell()
        if not self._explained:
            self._explained = True
            self._reporter.note(f"{prefix} is made here: {self._why(prefix, inputs, found)}")
        return None

    def along(self, prefix: str, outer: Commit, names: Sequence[str], fence: Callable[[], None]) -> None:
        """Take the stages ``names`` within the stage ``outer`` too, where the other run has the same stage.

        Nobody asks for them where what is made of them is taken as well; a run from nothing has them.
        """
        found = self._committed(prefix) if self._other is not None and names else None
        if self._other is None or found is None or found.digest != outer.digest:
            return
        for name in names:
            inner, planned = self._committed(f"{prefix}/{name}"), commit.planned_inputs(self._other, f"{prefix}/{name}")
            if inner is not None and planned is not None:
                made = inner.summary, inner.parts
                commit.ensure(self._store, inner.stage, planned, lambda _, made=made: made, fence)  # type: ignore[misc]

    def tell(self) -> None:
        """Tell what was taken since it was told last."""
        if self._untold and self._other is not None:
            count = f"{len(self._untold)} stage{'s' if len(self._untold) > 1 else ''}"
            self._reporter.note(f"taken from {self._other.url}: {count} ({_listed(self._untold)})")
        self._untold = []

    def _committed(self, prefix: str) -> Commit | None:
        """The other run's commit of the stage at ``prefix``, whatever it was made from."""
        assert self._other is not None
        try:
            return commit.find_commit(self._other, prefix)
        except IntegrityError as error:
            raise IntegrityError(f"{self._other.url}, which this run was forked from: {error}") from error

    def _why(self, prefix: str, inputs: dict[str, Any], found: Commit | None) -> str:
        assert self._other is not None
        if found is None:
            return "the other run has not finished it"
        differ = [row.partition(": ")[0] for row in changes(commit.planned_inputs(self._other, prefix) or {}, inputs)]
        return f"in the other run it differs in {_listed(differ)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
