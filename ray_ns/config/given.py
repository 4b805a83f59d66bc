"""Setting ``teacher`` where it is no recipe but a network that one has."""

from typing import Any

from pydantic import Field, model_validator

from ray_ns.config.schema import NetworkSetting, Section, how
from ray_ns.config.training import Training


class GivenTeacher(Section):
    """A network that one has, instead of a recipe: it is round 0 as it is, and nothing is trained."""

    place: NetworkSetting = how(
        ...,
        "a folder with model.safetensors and config.json, such as RUN/best or one that timm wrote; such a file beside "
        "its config.json; a run that has ended; or timm's name of a network with weights, such as "
        "tf_efficientnet_b0.ns_jft_in1k. It is copied into the run; its hash decides, not where it lies",
        alias="from",
    )
    sha256: str | None = Field(
        None,
        description="hash of its weights' file, which must match; null: that of the file as the run begins, recorded",
        pattern=r"^[0-9a-f]{64}$",
    )

    @model_validator(mode="before")
    @classmethod
    def _not_trained(cls, values: Any) -> Any:
        recipe = [name for name in Training.model_fields if isinstance(values, dict) and name in values]
        if recipe:
            raise ValueError(f"from gives a network, which is not trained; leave {', '.join(recipe)} out")
        return values
