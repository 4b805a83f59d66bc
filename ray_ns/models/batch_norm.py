"""Batch norm over a group of training workers: each channel's mean and variance are of the images of all of them.

The released code does so on a TPU (noisystudent, utils.py, TpuBatchNormalization): over groups of max(8, shards / 8)
shards where there are more than 8, each alone otherwise. Shapes: C channels, W workers of the group.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from ray_ns.errors import InputError


class _Normalise(torch.autograd.Function):
    """``(x - mean) / sqrt(variance + eps) x weight + bias`` per channel, where mean and variance are the group's.

    Gradients flow through mean and variance to every worker's images. What is kept for the way back is ``x`` and four
    numbers per channel, as PyTorch's own batch norm keeps.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        found: tuple[Tensor, ...],
        eps: float,
        group: Any,
    ) -> Tensor:
        mean, variance, count = found
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), count)
        ctx.group = group
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        shape = _per_channel(x)
        exact, centred = gradient.to(mean.dtype), x.to(mean.dtype) - mean.view(shape)
        own = torch.stack([_sum(exact), _sum(exact * centred)])
        group = own.clone()
        dist.all_reduce(group, group=ctx.group)
        mean_gradient, slope = (group / count).unbind()
        back = exact - mean_gradient.view(shape) - centred * (slope * scale.square()).view(shape)
        back = back * (scale if weight is None else scale * weight).view(shape)
        return (
            back.to(x.dtype),
            own[1] * scale if ctx.needs_input_grad[1] else None,
            own[0] if ctx.needs_input_grad[2] else None,
            *(None, None, None),
        )


class _Grouped(_BatchNorm):
    """A batch norm whose statistics in training are those of ``group``; in eval mode nothing is communicated."""

    group: Any

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        found = _statistics(x, self.group)
        if self.track_running_stats:
            self._follow(*found)
        normalised: Tensor = _Normalise.apply(x, self.weight, self.bias, found, self.eps, self.group)
        return normalised

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Update the running statistics; their variance is the unbiased one of the group's images."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var.dtype), share)


class GroupBatchNorm1d(_Grouped, nn.BatchNorm1d):
    """``BatchNorm1d`` over a group of workers."""


class GroupBatchNorm2d(_Grouped, nn.BatchNorm2d):
    """``BatchNorm2d`` over a group of workers."""


class GroupBatchNorm3d(_Grouped, nn.BatchNorm3d):
    """``BatchNorm3d`` over a group of workers."""


class GroupBatchNormAct2d(_Grouped, BatchNormAct2d):
    """timm's batch norm with its dropout and activation, over a group of workers."""

    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(x)
        if self.training:  # in eval mode timm's own forward has done both
            found = self.act(self.drop(found))
        return found


_GROUPED: dict[type[nn.Module], type[_Grouped]] = {
    nn.BatchNorm1d: GroupBatchNorm1d,
    nn.BatchNorm2d: GroupBatchNorm2d,
    nn.BatchNorm3d: GroupBatchNorm3d,
    BatchNormAct2d: GroupBatchNormAct2d,
}


def check_shareable(network: nn.Module) -> None:
    """Raise ``InputError`` where a norm of another kind would go on with the statistics of each worker alone."""
    for name, module in network.named_modules():
        follows = isinstance(module, _BatchNorm) or getattr(module, "running_var", None) is not None
        if follows and type(module) not in _GROUPED:
            known = ", ".join(sorted(it.__name__ for it in _GROUPED))
            raise InputError(
                f"model.name: {name} is a {type(module).__name__}, which cluster.bn_group cannot take over several "
                f"workers; expected {known}. Use another network, or cluster.bn_group: 1."
            )


def share_statistics(network: nn.Module, group: Any) -> None:
    """Let every batch norm of a network in training take its statistics over ``group``, of torch.distributed.

    All workers of the group must go forward and back through the network together. In place: names, weights, running
    statistics, and what holds one of its modules stay.
    """
    for module in network.modules():
        grouped = _GROUPED.get(type(module))
        if grouped is not None:
            module.__class__ = grouped
            module.group = group


def _statistics(x: Tensor, group: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance per channel, (C,), over the group's images, and of how many values each is, ().

    The variance is made of the workers' variances and of how far their means lie from the group's: sums of squares
    would lose the digits of a small variance beside a large mean.
    """
    exact = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    own_variance, own_mean = torch.var_mean(exact, _others(x), correction=0)
    table_W = exact.new_zeros(dist.get_world_size(group), 2 * len(own_mean) + 1)
    table_W[dist.get_rank(group)] = torch.cat([own_mean, own_variance, own_mean.new_tensor([exact[:, 0].numel()])])
    dist.all_reduce(table_W, group=group)
    means_WC, variances_WC, counts_W1 = table_W.split([len(own_mean), len(own_mean), 1], 1)
    count = counts_W1.sum()
    parts_W1 = counts_W1 / count
    mean = (parts_W1 * means_WC).sum(0)
    variance = (parts_W1 * (variances_WC + (means_WC - mean).square())).sum(0)
    return mean, variance, count


def _others(x: Tensor) -> list[int]:
    """All dimensions but that of the channels."""
    return [0, *range(2, x.dim())]


def _sum(x: Tensor) -> Tensor:
    return x.sum(_others(x))


def _per_channel(x: Tensor) -> list[int]:
    """The shape in which numbers per channel broadcast over ``x``."""
    return [1, -1] + [1] * (x.dim() - 2)
