"""How labels come of a network: what happens to its logits before there are probabilities."""

from dataclasses import dataclass

from ray_ns.config import Label


@dataclass(frozen=True)
class Voting:
    """``temperature``: what the logits are divided by before the softmax."""

    temperature: float = 1.0

    @classmethod
    def asked(cls, label: Label, found: float | None = None) -> "Voting":
        """As the settings say; ``found``: the temperature that was found, where they leave it to be found."""
        temperature = label.temperature if found is None else found
        assert temperature != "auto", "it is found before anything is labelled"
        return cls(temperature)


ALONE = Voting()  # the network as it is
