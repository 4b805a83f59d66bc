"""What a prediction is asked for, and what of it decides its labels and is recorded as the settings of a run are."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from ray_ns.config import yaml_text
from ray_ns.config.cluster import Cluster
from ray_ns.config.data import Data
from ray_ns.config.labelling import Label
from ray_ns.config.read import laid_over
from ray_ns.config.schema import Section
from ray_ns.errors import InputError

# Of ``data``: all else is the network's own.
OF_DATA = ("image_column", "max_quarantined")


class Asked(Section):
    """The settings of a prediction: the sections of a run's config that label a pool."""

    data: Data
    label: Label = Label()
    cluster: Cluster = Cluster()


def asked(values: dict[str, Any], overrides: Sequence[str]) -> Asked:
    """``values`` (sections by name) with ``section.key=value`` laid over them.

    Raises ``InputError`` for a setting that is none of a prediction's, and for a value that cannot be.
    """
    for override in overrides:
        section, dot, key = override.partition("=")[0].partition(".")
        if not dot or not (section in {"label", "cluster"} or (section == "data" and key in OF_DATA)):
            raise InputError(
                f"{yaml_text.shown(override)}: not a setting of a prediction, which takes label.*, cluster.* and "
                f"{', '.join(f'data.{it}' for it in OF_DATA)}. All else is as the network was trained."
            )
    return laid_over(Asked, values, overrides)


class Prediction(Section):
    """What decides the labels of a prediction beside the images."""

    weights: str = Field(description="sha256 of the network's model.safetensors")
    network: str = Field(description="sha256 of the network's config.json")
    data: Data
    label: Label


class Predicted(Section):
    """The settings of a prediction, in the place where those of a run have their sections."""

    predict: Prediction
