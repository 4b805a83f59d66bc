"""A paper each, one page: the algorithm over stages that are handed to it."""

from collections.abc import Callable, Mapping

from ray_ns.config import Config, Method
from ray_ns.methods.noisy_student import Turns, noisy_student
from ray_ns.methods.one_round import one_round
from ray_ns.methods.outcome import Outcome
from ray_ns.methods.supervised import supervised

METHODS: Mapping[Method, Callable[[Turns, Config], Outcome]] = {
    "noisy_student": noisy_student,
    "supervised": supervised,
    "pseudo_label": one_round,
    "uda": one_round,
    "meta_pseudo_labels": one_round,
}
