"""A network that is given, copied into a run that did not train it: a prediction's first stage, or round 0's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ray_ns.artifacts.network import Network, fed_facts
from ray_ns.config import Data
from ray_ns.engine.stages.stage import Done, Stage
from ray_ns.seals import sha256
from ray_ns.store.commit import Commit, Output

if TYPE_CHECKING:
    from ray_ns.engine.run import Run


@dataclass(frozen=True)
class Copy(Stage[Network]):
    """The committed copy of a network's two ``files``, so that all that made the labels lies in one place.

    ``fed``: how it is fed with images; None: as ``data`` says. ``told``: what else its summary says.
    """

    files: Mapping[str, bytes]
    fed: Data | None = None
    told: Mapping[str, Any] = field(default_factory=dict)

    name = "network"

    def inputs(self, run: "Run") -> dict[str, Any]:
        return {"files": {name: sha256(content) for name, content in self.files.items()}, **self._facts(run)}

    def work(self, run: "Run", output: Output) -> Done:
        output.publish(0, self.files, {})
        return Done({**self._facts(run), **self.told}, 1)

    def artifact(self, run: "Run", commit: Commit) -> Network:
        return Network(commit)

    def _facts(self, run: "Run") -> dict[str, Any]:
        return fed_facts(run.config.data, self.fed or run.config.data)
