"""Batch norm over a group of workers: what one worker would find that sees all the group's images."""

import copy
import os
from typing import Any

import pytest
import timm
import torch
import torch.distributed as dist
from support import tiny_training
from timm.layers import BatchNormAct2d
from torch import nn

from ray_ns.errors import InputError
from ray_ns.models.batch_norm import check_shareable, share_statistics

WORLD, GROUP = 4, 2
IMAGES = (3, 5, 2, 6)  # of each worker: groups need not be of equal parts
FAR = 300.0  # a mean beside which sums of squares have no digit left for the variance
COMPARED = ("out", "to_images", "of_weights", "state")


class Norms(nn.Module):
    """Every kind of batch norm that is shared, some with another momentum, without weights, or frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.plain = nn.BatchNorm2d(4, momentum=None)
        self.acting = BatchNormAct2d(4, momentum=0.01, eps=1e-3)
        self.bare = nn.BatchNorm3d(4, affine=False)
        self.frozen = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        self.flat = nn.BatchNorm1d(3, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.acting(self.plain(self.conv(x)))
        x = self.frozen(self.bare(x[:, :, None])[:, :, 0])
        found: torch.Tensor = self.flat(self.head(x.mean((2, 3))))
        return found


def made() -> Norms:
    """The same network for all; its first norm has running statistics and weights of its own."""
    torch.manual_seed(5)
    network = Norms()
    for norm in (network.plain, network.acting):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return network.train()


def pixels(rank: int) -> torch.Tensor:
    """A worker's images: each has other ones, about another mean."""
    return torch.randn(IMAGES[rank], 2, 6, 6, generator=torch.Generator().manual_seed(rank)) * (rank + 1) + rank


def passed(network: Norms, images: torch.Tensor, times: int = 2) -> dict[str, Any]:
    """What comes of ``times`` passes forward and back: of the last one its output and gradients, and the state."""
    network.frozen.eval()
    images = images.to(network.conv.weight.dtype)
    images = images.clone().requires_grad_()
    for _ in range(times):
        network.zero_grad()
        images.grad = None
        out = network(images)
        (out.sin() * 3).sum().backward()
    return {
        "out": out.detach(),
        "to_images": images.grad,
        "of_weights": {name: it.grad for name, it in network.named_parameters()},
        "state": copy.deepcopy(network.state_dict()),
    }


def one_of(rank: int, meet: str, out: Any) -> None:
    torch.set_num_threads(1)
    os.environ.update(GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=WORLD)
    group, _ = dist.new_subgroups(GROUP)
    network = made().double()
    before = [list(network.state_dict()), {id(it) for it in network.parameters()}, {id(it) for it in network.modules()}]
    share_statistics(network, group)
    after = [list(network.state_dict()), {id(it) for it in network.parameters()}, {id(it) for it in network.modules()}]
    found = passed(network, pixels(rank))
    for it in found["of_weights"].values():
        dist.all_reduce(it, group=group)  # the loss of a group is the sum of its workers'
    found["same modules"] = before == after
    rough = made()
    share_statistics(rough, group)
    with torch.autocast("cpu", torch.bfloat16):
        found["bfloat16"] = passed(rough, pixels(rank), 1)["to_images"]
    far = nn.BatchNorm1d(2)
    share_statistics(far, group)
    far(torch.full((2, 2), FAR) + 0.1 * pixels(rank)[:2, :, 0, 0])
    found["far"] = far.running_var
    if rank == 0:  # alone, without the others: nothing may be asked of them
        found["eval"] = network.eval()(pixels(0).double()).detach()
    out.put((rank, {name: _plain(it) for name, it in found.items()}))
    dist.barrier()


def _plain(value: Any) -> Any:
    """Tensors as arrays: those in shared memory would end with their process."""
    if isinstance(value, dict):
        return {name: _plain(it) for name, it in value.items()}
    return value.detach().numpy() if isinstance(value, torch.Tensor) else value


def workers(meet: str, out: Any) -> None:
    import torch.multiprocessing as mp

    mp.start_processes(one_of, (meet, out), WORLD, start_method="fork")


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of four workers found, in groups of two."""
    forks = tiny_training.forks()
    out = forks.Queue()
    process = forks.Process(target=workers, args=(str(tmp_path_factory.mktemp("groups") / "meet"), out))
    process.start()
    found = dict(out.get(timeout=100) for _ in range(WORLD))
    process.join(100)
    assert process.exitcode == 0
    return [found[rank] for rank in range(WORLD)]


def alone(*ranks: int) -> dict[str, Any]:
    """What one worker finds, with PyTorch's and timm's own norms, that has the images of these."""
    return passed(made().double(), torch.cat([pixels(rank) for rank in ranks]))


def together(ends: list[dict[str, Any]], *ranks: int) -> dict[str, Any]:
    """What the workers of a group found, as one: their images' rows after each other."""
    first = ends[ranks[0]]
    for rank in ranks[1:]:
        same(first["state"], ends[rank]["state"])
        same(first["of_weights"], ends[rank]["of_weights"])
    rows = {name: torch.cat([torch.tensor(ends[it][name]) for it in ranks]) for name in ("out", "to_images")}
    return {**first, **rows}


def same(found: Any, wanted: Any) -> None:
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for name in wanted:
            same(found[name], wanted[name])
    elif wanted is None:
        assert found is None
    else:
        found, wanted = torch.as_tensor(found), torch.as_tensor(wanted)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def differs(found: Any, wanted: Any) -> bool:
    try:
        same(found, wanted)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("ranks", [(0, 1), (2, 3)])
@pytest.mark.parametrize("what", COMPARED)
def test_a_group_is_one_worker_with_all_its_images(
    ends: list[dict[str, Any]], ranks: tuple[int, ...], what: str
) -> None:
    same(together(ends, *ranks)[what], alone(*ranks)[what])


@pytest.mark.parametrize("what", COMPARED)
def test_groups_do_not_mix_and_a_worker_alone_finds_something_else(ends: list[dict[str, Any]], what: str) -> None:
    both = together(ends, 0, 1)[what]
    assert differs(both, together(ends, 2, 3)[what])
    if what in ("out", "to_images"):
        assert differs(both, torch.cat([alone(rank)[what] for rank in (0, 1)]))
        assert differs(both, alone(0, 1, 2, 3)[what][: len(both)])
    else:
        assert differs(both, alone(0)[what])
        assert differs(both, alone(0, 1, 2, 3)[what])


def test_names_weights_and_modules_stay(ends: list[dict[str, Any]]) -> None:
    assert all(it["same modules"] for it in ends)
    assert list(ends[0]["state"]) == list(made().state_dict())


def test_in_eval_mode_nothing_is_communicated(ends: list[dict[str, Any]]) -> None:
    network = made().double()
    network.load_state_dict({name: torch.as_tensor(it) for name, it in ends[0]["state"].items()})
    same(ends[0]["eval"], network.eval()(pixels(0).double()))


def test_in_bfloat16_it_is_as_exact_as_pytorchs_own(ends: list[dict[str, Any]]) -> None:
    images = torch.cat([pixels(0), pixels(1)])
    exact = passed(made(), images, 1)["to_images"]
    with torch.autocast("cpu", torch.bfloat16):
        pytorchs = passed(made(), images, 1)["to_images"]
    rough = torch.cat([torch.tensor(ends[rank]["bfloat16"]) for rank in (0, 1)])
    assert not torch.equal(rough, exact)
    assert (rough - exact).norm() < 2 * (pytorchs - exact).norm() < exact.norm()


def test_a_small_variance_beside_a_large_mean_keeps_its_digits(ends: list[dict[str, Any]]) -> None:
    images = torch.cat([torch.full((2, 2), FAR) + 0.1 * pixels(rank)[:2, :, 0, 0] for rank in (0, 1)])
    wanted = 0.9 + 0.1 * images.double().var(0)
    torch.testing.assert_close(torch.tensor(ends[0]["far"]).double(), wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["efficientnet_b0", "resnet10t", "convnext_atto", "mobilenetv3_small_050"])
def test_timms_usual_networks_can_share(name: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(name)
    check_shareable(network)
    share_statistics(network, None)
    norms = [it for it in network.modules() if isinstance(it, nn.modules.batchnorm._BatchNorm)]
    assert bool(norms) == (name != "convnext_atto")
    assert all("Group" in type(it).__name__ for it in norms)


@pytest.mark.parametrize("norm", ["evonorm", "splitbn"])
def test_norms_that_cannot_share_are_refused_by_name(norm: str) -> None:
    if norm == "splitbn":
        network = timm.layers.convert_splitbn_model(timm.create_model("resnet10t"))
    else:
        network = nn.Sequential(timm.layers.EvoNorm2dB0(4))
    with pytest.raises(InputError, match=r"model\.name: \S+ is a (EvoNorm2dB0|SplitBatchNorm2d).*cluster\.bn_group"):
        check_shareable(network)
