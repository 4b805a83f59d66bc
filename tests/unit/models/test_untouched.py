"""A network that is looked at is as it was, and so is what is drawn next."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from support import tiny_training
from torch import nn

from ray_ns.models.batch_norm import GroupBatchNorm2d, share_statistics
from ray_ns.models.untouched import Draws, untouched

CPU = torch.device("cpu")


def made() -> nn.Module:
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(4)
    return nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 3))


def images(seed: int = 2) -> torch.Tensor:
    return torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def buffers(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: it.clone() for name, it in network.named_buffers()}


def differing(network: nn.Module, before: dict[str, torch.Tensor]) -> list[str]:
    return [name for name, it in network.named_buffers() if not torch.equal(before[name], it)]


def test_a_pass_in_training_mode_leaves_every_buffer() -> None:
    network = made()
    network(images())
    before, held = buffers(network), list(network.buffers())
    with untouched(network):
        inside = network(images(3))
        network(images(4))
        assert len(differing(network, before)) == 3, "mean, variance and their number follow in the block alone"
    assert not differing(network, before)
    assert all(one is other for one, other in zip(network.buffers(), held, strict=True)), "who holds one holds it still"
    assert torch.equal(network(images(3)), inside), "dropout draws what it would have drawn without the block"
    assert len(differing(network, before)) == 3


def test_buffers_come_back_where_the_block_fails() -> None:
    network = made()
    before = buffers(network)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    with pytest.raises(RuntimeError, match="shapes"), untouched(network):
        network(images()[..., :5])  # the last layer fails, the batch norm does not
    assert not differing(network, before)
    assert torch.equal(torch.rand(3), wanted)


def test_two_passes_that_are_handed_the_same_draws_drop_the_same() -> None:
    network = made()
    torch.manual_seed(5)
    with untouched(network) as draws:
        first = network(images())
    assert torch.equal(torch.get_rng_state(), draws.on_cpu), "afterwards comes what would have come without it"
    torch.rand(7)
    between = torch.get_rng_state()
    with untouched(network, draws):
        again = network(images())
    assert torch.equal(again, first)
    assert torch.equal(torch.get_rng_state(), between)
    with untouched(network):
        assert not torch.equal(network(images()), first)


def test_draws_come_again_when_they_are_asked_for() -> None:
    draws = Draws.next(CPU)
    wanted = torch.rand(4)
    torch.rand(9)
    draws.again()
    assert torch.equal(torch.rand(4), wanted)


def gradient(network: nn.Module, loss: torch.Tensor) -> torch.Tensor:
    return torch.cat([it.flatten() for it in torch.autograd.grad(loss, list(network.parameters()))])


@pytest.mark.parametrize("mode", [nn.Module.train, nn.Module.eval])
def test_graphs_from_before_and_from_within_go_back_afterwards(mode: Callable[[nn.Module], nn.Module]) -> None:
    def loss_of(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return F.cross_entropy(network(images(seed)), torch.tensor([0, 1, 2, 0, 1, 2]))

    network = mode(made())
    wanted = [gradient(network, loss_of(seed)) for seed in (3, 4)]
    network = mode(made())
    before = loss_of(3)
    with untouched(network):
        within = loss_of(4)
    torch.testing.assert_close(gradient(network, before), wanted[0])
    torch.testing.assert_close(gradient(network, within), wanted[1])


def workers(meet: str, out: Any) -> None:
    import torch.multiprocessing as mp

    torch.set_num_threads(1)
    mp.start_processes(one_of, (meet, out), 2, start_method="fork")


def one_of(rank: int, meet: str, out: Any) -> None:
    torch.set_num_threads(1)
    os.environ.update(GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    network = made()
    share_statistics(network, dist.new_subgroups(2)[0])
    wrapped = nn.parallel.DistributedDataParallel(network)
    network[1].running_mean.fill_(float(rank))  # type: ignore[index,operator,union-attr]
    before = buffers(network)
    found = {"kind": type(network[1]) is GroupBatchNorm2d, "changed": []}  # type: ignore[index]
    for keep in (torch.enable_grad, torch.no_grad):
        with untouched(network) as draws, keep():
            logits = wrapped(images(rank))
            found["follows"] = differing(network, before)
        found["changed"] += differing(network, before)
        with untouched(network, draws), torch.no_grad():
            found["same"] = torch.equal(wrapped(images(rank)), logits)
        found["changed"] += differing(network, before)
    wrapped(images(rank))
    found["sent"] = float(network[1].running_mean.sub(before["1.running_mean"]).abs().max()) > 0  # type: ignore
    out.put((rank, found))


def test_workers_that_share_their_statistics_and_their_gradients_leave_no_trace_either(tmp_path: Path) -> None:
    forks = tiny_training.forks()
    out = forks.Queue()
    process = forks.Process(target=workers, args=(str(tmp_path / "meet"), out))
    process.start()
    ends = dict(out.get(timeout=100) for _ in range(2))
    process.join(100)
    assert process.exitcode == 0
    for rank in (0, 1):
        assert ends[rank]["kind"]
        assert ends[rank]["changed"] == []
        assert "1.running_mean" in ends[rank]["follows"]
        assert ends[rank]["same"]
        assert ends[rank]["sent"]
