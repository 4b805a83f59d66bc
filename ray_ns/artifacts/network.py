"""A trained network: one part with ``model.safetensors`` and ``config.json``."""

from collections.abc import Mapping

from ray_ns.artifacts.artifact import Artifact
from ray_ns.models.files import CONFIG, WEIGHTS
from ray_ns.store.commit import StoredObject


class Network(Artifact):
    """What ``train`` and ``finetune`` commit."""

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
    def size(self) -> int | None:
        """Side of the images it sees, pixels: a fine-tuned one may see larger ones. None: an earlier version's."""
        size = self.commit.summary.get("size")
        return None if size is None else int(size)
