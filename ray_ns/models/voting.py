"""How probabilities come of a network: over which views of an image, and what happens to its logits."""

from dataclasses import dataclass

from ray_ns.config import Label, Views

COUNTS: dict[Views, int] = {"one": 1, "flip": 2, "five_crops": 5, "ten_crops": 10}  # forward passes per image


@dataclass(frozen=True)
class Voting:
    """``temperature``: what the logits are divided by before the softmax. ``views``: what that is averaged over."""

    temperature: float = 1.0
    views: Views = "one"

    @classmethod
    def asked(cls, label: Label, found: float | None = None) -> "Voting":
        """As the settings say; ``found``: the temperature that was found, where they leave it to be found."""
        temperature = label.temperature if found is None else found
        assert temperature != "auto", "it is found before anything is labelled"
        return cls(temperature, label.views)

    @property
    def passes(self) -> int:
        """Forward passes per image."""
        return COUNTS[self.views]


ALONE = Voting()  # the network as it is
