"""What a prediction or an evaluation is asked for, and what of it decides its outcome and is recorded.

Both record it as a run records its settings.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from ray_ns.config import yaml_text
from ray_ns.config.cluster import Cluster
from ray_ns.config.config import Config
from ray_ns.config.data import Data
from ray_ns.config.labelling import Label
from ray_ns.config.read import laid_over
from ray_ns.config.results import Settings
from ray_ns.config.schema import Section
from ray_ns.errors import InputError

# Of ``data``: all else is the network's own.
OF_DATA = ("image_column", "max_quarantined")


class Asked(Section):
    """The settings of a prediction or an evaluation: the sections of a run's config that label a pool."""

    data: Data
    label: Label = Label()
    cluster: Cluster = Cluster()


def asked(
    values: dict[str, Any], overrides: Sequence[str], of_data: Sequence[str] = OF_DATA, what: str = "a prediction"
) -> Asked:
    """``values`` (sections by name) with ``section.key=value`` laid over them.

    Raises ``InputError`` for a setting that is none of ``what`` is asked for, and for a value that cannot be.
    ``of_data``: the settings of ``data`` that it takes.
    """
    for override in overrides:
        section, dot, key = override.partition("=")[0].partition(".")
        if not dot or not (section in {"label", "cluster"} or (section == "data" and key in of_data)):
            raise InputError(
                f"{yaml_text.shown(override)}: not a setting of {what}, which takes label.*, cluster.* and "
                f"{', '.join(f'data.{it}' for it in of_data)}. All else is as the network was trained."
            )
    found = laid_over(Asked, values, overrides)
    if found.label.temperature == "auto":
        raise InputError(
            f"label.temperature=auto: {what} has no validation images to find a temperature on; a run has. Give the "
            f"number that a run has found (the calibrate stage in its folder), or leave it out."
        )
    if found.label.others:
        raise InputError(
            f"label.teachers={found.label.teachers}: {what} is of the network that it is given. Leave it out."
        )
    if found.label.noised:
        raise InputError(f"label.noised: {what} has no student whose noise that could be. Leave it out.")
    return found


def labelled_by(record: Mapping[str, Any] | None, without: Sequence[str]) -> dict[str, Any]:
    """The settings by which the run whose ``run.json`` is ``record`` labels; None: the usual ones.

    ``without``: those that one network by itself does not take over (``labelling.OF_A_STUDENT``, ``OF_A_POOL``).
    """
    if record is None:
        return {}
    found = Settings.of_run(record, Config).with_defaults(record["config"].get("label", {}), Label)
    return {name: value for name, value in found.items() if name not in without}


class Prediction(Section):
    """What decides the labels of a prediction beside the images."""

    weights: str = Field(description="sha256 of the network's model.safetensors")
    network: str = Field(description="sha256 of the network's config.json")
    data: Data
    label: Label


class Predicted(Section):
    """The settings of a prediction, in the place where those of a run have their sections."""

    predict: Prediction


class Evaluation(Section):
    """What decides the figures of an evaluation beside the images."""

    weights: dict[str, str] = Field(description="by turn of the run (rounds/0, control): sha256 of model.safetensors")
    networks: dict[str, str] = Field(description="the same of config.json")
    on: list[str] = Field(description="the suites, each with the name of its corpus, and the digest of ReaL labels")
    data: Data
    label: Label


class Evaluated(Section):
    """The settings of an evaluation, in the place where those of a run have their sections."""

    evaluate: Evaluation
