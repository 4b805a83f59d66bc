"""A trained network: one part with ``model.safetensors`` and ``config.json``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray_ns.artifacts.artifact import Artifact
from ray_ns.config import FED, Data
from ray_ns.config.data import CropShare
from ray_ns.models.files import CONFIG, WEIGHTS
from ray_ns.store.commit import StoredObject

GIVEN = "rounds/0/network"  # where a run has the copy of a teacher that was given


class Network(Artifact):
    """What ``train`` and ``finetune`` commit, and the copy of one that was given."""

    @property
    def files(self) -> Mapping[str, StoredObject]:
        """Its files by name."""
        return self.commit.parts[0].objects

    @property
    def weights(self) -> StoredObject:
        """``model.safetensors``."""
        return self.files[WEIGHTS]

    @property
    def weights_sha256(self) -> str:
        """Hex sha256 of ``model.safetensors``."""
        return self.weights.sha256

    @property
    def folder(self) -> str:
        """Where its files lie in the run."""
        return self.files[CONFIG].key.rpartition("/")[0]

    @property
    def parameters(self) -> int:
        """Number of trained weights."""
        return int(self.commit.summary["parameters"])

    @property
    def model(self) -> str:
        """The name of its architecture, timm's: of a teacher that was given; of any other its recipe says it."""
        return str(self.commit.summary["model"])

    def fed(self, data: Data) -> Data:
        """How it is fed with images, where ``data`` is how those of its run are read."""
        summary = self.commit.summary
        told = {name: value for name, value in summary.get("fed", {}).items() if name in FED}
        return data.read_as(size=summary.get("size"), **told)  # one of an earlier version has no size


def fed_facts(data: Data, own: Data) -> dict[str, Any]:
    """What a commit says of how its network is fed: by ``own`` settings, in a run whose images are read by ``data``."""
    differ = {name: getattr(own, name) for name in FED[1:] if getattr(own, name) != getattr(data, name)}
    return {"size": own.size, **({"fed": differ} if differ else {})}


@dataclass(frozen=True)
class At(Network):
    """A network that is shown images of another ``side``, pixels, than the one it was committed for.

    ``crop_share``: of the images, where it is another one too.
    """

    side: int
    crop_share: CropShare | None = None

    def fed(self, data: Data) -> Data:
        return super().fed(data).read_as(size=self.side, crop_share=self.crop_share)


def whole(network: Network, data: Data) -> At:
    """The network, shown the middle square of an image whole, whatever its crop. ``data``: its run's."""
    own = network.fed(data)
    return At(network.commit, own.size, 1.0 if own.fit == "crop" else None)
