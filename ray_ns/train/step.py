"""One optimiser step: what is common to all objectives."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ray_ns.config import Data, Fixing, Student, Training
from ray_ns.config.methods import Adjusting
from ray_ns.errors import ResumableError
from ray_ns.images.augment import affine
from ray_ns.keyed import hashes, seed
from ray_ns.models.spared import kept
from ray_ns.train.data import Batch
from ray_ns.train.objective import Objective, Source
from ray_ns.train.state import Net, TrainState

ALONE = "network"  # what an objective calls a network that no section of a config is named after


class NotFiniteError(ResumableError):
    """A loss or a gradient is NaN or infinite. Raised by all workers, before the update."""


@dataclass(frozen=True)
class Piece:
    """One microbatch on the device: ``pixels`` (b, channels, size, size), ``targets`` (b, classes).

    ``part``: its images' part of the worker's, so that the sum over pieces of part x mean is the mean. ``pseudo``:
    which of its images are of the selection, bool (b,).
    """

    pixels: Tensor
    targets: Tensor
    part: float
    pseudo: Tensor


class Share:
    """One worker's images of a step, to be gone through in microbatches; ``counts``: how many of each source's views.

    ``sources``: what each is. ``noised``: from images, whether each is of a view that is noised, and whether each is
    drawn for, to pixels. ``key``: of the draws of this step, the same to all workers. Gradients are summed over the
    pieces, and over the workers as the last piece is gone back through.
    """

    def __init__(
        self,
        batch: Batch,
        sources: Sequence[Source],
        nets: Mapping[str, Net],
        microbatch: int | None,
        device: torch.device,
        noised: Callable[[Tensor, Tensor, Tensor], Tensor],
        key: tuple[int, ...],
    ) -> None:
        self.counts = batch.counts
        self.device = device
        views = [(source, one) for source in sources for one in source.views]

        def by_image(of_views: Iterable[bool]) -> Tensor:
            return torch.tensor(list(of_views)).repeat_interleave(torch.tensor(batch.counts))

        self._pseudo = by_image(source.images == "selection" for source, _ in views)
        self._noisy = by_image(one for _, one in views)
        # Beside a noised view of its image a plain one takes no draws, so that the noised one's are what they would be
        # alone. A source that is not noised at all takes them, so that those of the others are what they would be.
        self._drawn = by_image(one or not any(source.views) for source, one in views)
        self._batch, self._nets, self._noised, self._key = batch, nets, noised, key
        self._views = [len(source.views) for source in sources]
        self._parts = -(-len(batch.images) // (microbatch or len(batch.images)))

    def __iter__(self) -> Iterator[Piece]:
        images, targets = self._batch.images, self._batch.targets
        for number in range(self._parts):
            # Every parts-th image, so that all microbatches have images of each source in the same share.
            some = images[number :: self._parts]
            pseudo = self._pseudo[number :: self._parts].to(self.device)
            pixels = self._noised(some, self._noisy[number :: self._parts], self._drawn[number :: self._parts])
            piece = Piece(pixels, targets[number :: self._parts].to(self.device), len(some) / len(images), pseudo)
            with ExitStack() as unsummed:
                if number < self._parts - 1:
                    for net in self._nets.values():
                        unsummed.enter_context(net.unsummed())
                yield piece

    def whole(self) -> Piece:
        """All of them at once, for an objective that looks at several views of an image together."""
        if self._parts > 1:
            raise ValueError(f"the share of {len(self._batch.images)} images comes in {self._parts} microbatches")
        return next(iter(self))

    def uniform(self, source: int) -> Tensor:
        """A number in [0, 1) for each image of the ``source``-th source, float64 (n,), in the order of each view.

        It is keyed by the step and the image's slot, so it is the same whatever the number of workers, and again if
        asked for again.
        """
        count = self.counts[sum(self._views[:source])]
        first = self._batch.first_slots[source] if self._batch.first_slots else 0
        bits = hashes(first + np.arange(count), *self._key, source)
        return torch.from_numpy((bits >> np.uint64(11)) * 2.0**-53).to(self.device)

    def backward(self, loss_of: Callable[[Piece], Tensor]) -> Tensor:
        """Go back through ``loss_of`` each piece; the sum of all."""
        total = torch.zeros((), device=self.device)
        for piece in self:
            loss = loss_of(piece)
            loss.backward()
            total = total + loss.detach()
        return total


class Step:
    """The step of one objective on one device. ``__call__`` takes it and gives the loss of the global batch.

    ``microbatch``: at most so many images go through the networks at once; the gradients of the worker's share are
    summed over them, so the loss is the mean over the same global batch (batch norm alone sees a microbatch).
    ``told`` says whether this worker is to leave. After a step ``leaving`` is the same to all of them: whether any was.
    """

    def __init__(
        self,
        objective: Objective,
        data: Data,
        key: int,
        device: torch.device,
        rank: int,
        microbatch: int | None = None,
        told: Callable[[], bool] = lambda: False,
    ) -> None:
        self._objective, self._key, self._device, self._rank = objective, key, device, rank
        self._microbatch = microbatch
        self._told = told
        self.leaving = False
        self._mean = torch.tensor(data.mean, device=device)[:, None, None]
        self._std = torch.tensor(data.std, device=device)[:, None, None]

    def __call__(self, state: TrainState, batch: Batch) -> float:
        """Noise the images, go forward and back, update weights and averages; the loss of the global batch.

        Every draw is keyed by (key, step, rank). Raises ``NotFiniteError`` on all workers, before the update, where
        a loss or a gradient is not finite.
        """
        torch.manual_seed(seed(self._key, 3, state.step, self._rank) % 2**63)
        for net in state.nets.values():
            net.begin()
        self.leaving = False

        updated: list[str] = []

        def agree(loss: Tensor, *nets: Net, **scalars: Tensor) -> Mapping[str, float]:
            own = {name: net for name, net in state.nets.items() if any(net is one for one in nets)}
            means = self._agreed(state, loss, own, updated, scalars)
            for net in nets:
                net.update(state.step + 1)
            updated.extend(own)
            return means

        sources = self._objective.sources()
        key = (self._key, 4, state.step)
        share = Share(batch, sources, state.nets, self._microbatch, self._device, self._noised, key)
        loss = self._objective.step(state, share, agree)
        state.step += 1
        return loss

    def _noised(self, images: Tensor, noisy: Tensor, drawn: Tensor) -> Tensor:
        """``affine``, which works on batches; every other input noise was made as the image was read.

        ``noisy``: the images that are noised, bool (b,), all of them ``drawn``, the images that draws are made for.
        """
        pixels = images.to(self._device).permute(0, 3, 1, 2).to(self._mean.dtype).div_(255)
        if self._objective.recipe.noise.augment == "affine":
            clean, pixels = pixels, self._affine(pixels, drawn)
            if not noisy.all():
                pixels = kept(~noisy.to(self._device), clean, pixels)
        return pixels.sub_(self._mean).div_(self._std).contiguous(memory_format=torch.channels_last)

    def _affine(self, pixels: Tensor, drawn: Tensor) -> Tensor:
        noise = self._objective.recipe.noise
        if drawn.all():
            return affine(pixels, noise.magnitude, noise.flip, torch.default_generator)
        at = drawn.nonzero()[:, 0].to(self._device)
        return pixels.index_copy(0, at, affine(pixels[at], noise.magnitude, noise.flip, torch.default_generator))

    def _agreed(
        self,
        state: TrainState,
        loss: Tensor,
        nets: Mapping[str, Net],
        updated: Sequence[str],
        scalars: Mapping[str, Tensor],
    ) -> Mapping[str, float]:
        """The means over the workers. All of them look at the same numbers, so all stop or none does.

        ``updated``: the networks that this step has updated before.
        """
        gradients = [gradient for net in nets.values() for gradient in _gradients(net)]
        world = dist.get_world_size() if dist.is_initialized() else 1
        found = torch.zeros(world + 2 + len(scalars), device=self._device)
        found[self._rank if world > 1 else 0] = loss
        found[world] = torch.nn.utils.get_total_norm(gradients)
        found[world + 1] = float(self._told())
        for place, scalar in enumerate(scalars.values(), world + 2):
            found[place] = scalar
        if world > 1:
            dist.all_reduce(found)
        numbers = found.tolist()
        losses, (norm, leaving), sums = numbers[:world], numbers[world : world + 2], numbers[world + 2 :]
        self.leaving |= leaving > 0
        totals = dict(zip(scalars, sums, strict=True))
        workers = [str(worker) for worker, one in enumerate(losses) if not math.isfinite(one)]
        wrong = [f"loss of worker {', '.join(workers)}"] if workers else []
        wrong += [f"sum of the workers' {name}" for name, total in totals.items() if not math.isfinite(total)]
        whose = [*nets] or [*dict.fromkeys(updated)] or [*state.nets]
        if not wrong and not math.isfinite(norm):
            wrong = ["sum of the workers' gradients"]
            whose = [
                it for it in whose if not math.isfinite(torch.nn.utils.get_total_norm(_gradients(nets[it])))
            ] or whose
        if wrong:
            raise NotFiniteError(_told(f"the {wrong[0]} is not finite at step {state.step}", state, whose, updated))
        return {"loss": sum(losses) / world, **{name: total / world for name, total in totals.items()}}


def _gradients(net: Net) -> list[Tensor]:
    return [weight.grad for weight in net.network.parameters() if weight.grad is not None]


def _told(what: str, state: TrainState, whose: Sequence[str], updated: Sequence[str]) -> str:
    """``what`` is wrong, of ``whose`` networks; what was ``updated`` before; and which settings mend it."""
    before = " and ".join(dict.fromkeys(updated))
    done = f"{before} had been updated in the same step, of which nothing is saved" if before else ""
    # A loss may have gone wrong by what another network, which was updated before, has become.
    rates = [_rate(name, state.nets[name].recipe) for name in dict.fromkeys((*whose, *updated))]
    warm_up = [it.replace(".lr", ".warmup_steps") for it in rates if it.endswith("optimizer.lr")]
    longer = f", or lengthen {' or '.join(warm_up)}" if warm_up else ""
    of = "" if [*state.nets] == [ALONE] else f"{', '.join(whose)}: "
    return f"{of}{what}; {done or 'nothing was updated'}. Lower {' or '.join(rates)}{longer}."


def _rate(name: str, recipe: Training) -> str:
    """The setting of a network's learning rate."""
    if isinstance(recipe, Adjusting):
        return "mpl.adjuster_lr"
    if name != ALONE:
        return f"{name}.optimizer.lr"
    section = "fixres." if isinstance(recipe, Fixing) else "student." if isinstance(recipe, Student) else ""
    return f"{section}optimizer.lr"
