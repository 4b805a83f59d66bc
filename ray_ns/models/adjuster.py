"""The small network that corrects a large teacher's stored labels: reduced Meta Pseudo Labels."""

import math

import torch
from torch import Tensor, nn

LEAST = 2.0**-24  # the smallest probability that stored labels, float16, tell from 0


class Adjuster(nn.Module):
    """A linear map of log-probabilities, the identity at first: n images, C classes.

    Reduced Meta Pseudo Labels (Pham et al. 2021) trains such a map of the cached predictions of a large teacher by the
    student's feedback, so that two large networks are never in memory together. The paper's is a small perceptron; a
    linear map can move any class to any other, and cannot fit single images.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(classes, classes)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(classes))
            self.linear.bias.zero_()

    def forward(self, log_probabilities: Tensor) -> Tensor:
        """Log-probabilities (n, C) of log-probabilities (n, C), which may be -inf: 0 counts as ``LEAST``."""
        return self.linear(log_probabilities.clamp_min(math.log(LEAST))).log_softmax(-1)
