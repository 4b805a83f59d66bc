"""FixRes: which weights and figures of a network change, and that the map behind the pooling is folded in exactly."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

from ray_ns.errors import InputError
from ray_ns.models import fixres
from ray_ns.models.fixres import Moments, Variant

SMALL = {"channels": [8, 8, 8, 8], "stem_type": "deep", "stem_width": 4, "output_stride": 8, "drop_path_rate": 0.3}
TRAINED: list[Variant] = ["head", "head_and_norm"]
ALL: list[Variant] = ["statistics", "affine", "head", "head_and_norm"]
LAST = "layer4.0.bn2"


@pytest.fixture
def network() -> nn.Module:
    """A residual network that has learned a little, so that its batch norms know something."""
    torch.manual_seed(0)
    made = timm.create_model("resnet10t", num_classes=3, in_chans=1, drop_rate=0.5, **SMALL)
    made.train()
    for _ in range(5):
        made(torch.randn(8, 1, 20, 20) * 2 + 1)
    return made.eval()


def images(seed: int, size: int = 28) -> Tensor:
    return torch.randn(8, 1, size, size, generator=torch.Generator().manual_seed(seed))


def tuned(network: nn.Module, variant: Variant, steps: int = 3) -> nn.Module:
    """What the steps make of a copy: all that has a gradient is updated."""
    made = copy.deepcopy(network)
    fixres.prepare(made, variant)
    optimizer = torch.optim.SGD((it for it in made.parameters() if it.requires_grad), 0.1)
    for step in range(steps):
        fixres.begin(made, variant)
        loss = nn.functional.cross_entropy(made(images(step)), torch.arange(8) % 3)
        if variant != "statistics":
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return made.eval()


def changed(one: nn.Module, other: nn.Module) -> set[str]:
    before, after = one.state_dict(), other.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("variant", ALL)
def test_the_classifier_alone_is_trainable(network: nn.Module, variant: Variant) -> None:
    fixres.prepare(network, variant)
    assert {name for name, it in network.named_parameters() if it.requires_grad} == {"fc.weight", "fc.bias"}


def test_head_changes_the_classifier_and_nothing_else(network: nn.Module) -> None:
    assert changed(network, tuned(network, "head")) == {"fc.weight", "fc.bias"}


def test_head_and_norm_changes_the_last_mean_and_variance_too_and_not_that_norms_weights(network: nn.Module) -> None:
    statistics = {f"{LAST}.running_mean", f"{LAST}.running_var", f"{LAST}.num_batches_tracked"}
    assert changed(network, tuned(network, "head_and_norm")) == {"fc.weight", "fc.bias"} | statistics


def test_statistics_changes_every_mean_and_variance_and_no_weight(network: nn.Module) -> None:
    found = changed(network, tuned(network, "statistics"))
    assert found == {name for name, _ in network.named_buffers() if "num_batches" not in name} | {
        f"{name}.num_batches_tracked" for name, it in network.named_modules() if isinstance(it, nn.BatchNorm2d)
    }
    assert not found & {name for name, _ in network.named_parameters()}


def test_statistics_are_the_means_over_batches_of_what_each_norm_sees(network: nn.Module) -> None:
    """The reference sees what each norm is given, through hooks, and knows nothing of running figures."""
    made = copy.deepcopy(network)
    fixres.prepare(made, "statistics")
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def watch(name: str) -> Callable[..., None]:
        def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            per_channel = given[0].double().transpose(0, 1).flatten(1)
            seen.setdefault(name, []).append((per_channel.mean(1), per_channel.var(1, correction=1)))

        return note

    named = {name: it for name, it in made.named_modules() if isinstance(it, nn.BatchNorm2d)}
    for name, norm in named.items():
        norm.register_forward_pre_hook(watch(name))
    for step in range(4):
        fixres.begin(made, "statistics")
        with torch.no_grad():
            made(images(step))
    assert len(named) > 5
    for name, norm in named.items():
        means, variances = zip(*seen[name], strict=True)
        torch.testing.assert_close(norm.running_mean.double(), torch.stack(means).mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var.double(), torch.stack(variances).mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", TRAINED)
def test_nothing_drops_out_while_it_is_tuned(network: nn.Module, variant: Variant) -> None:
    fixres.prepare(network, variant)
    logits = []
    for _ in range(2):
        fixres.begin(network, variant)
        logits.append(network(images(0)).detach())
    torch.testing.assert_close(*logits)


def features(network: nn.Module, pixels: Tensor) -> Tensor:
    """What the classifier sees, as timm gives it."""
    with torch.inference_mode():
        return network.forward_head(network.forward_features(pixels), pre_logits=True)


def test_moments_are_those_of_all_that_the_classifier_sees(network: nn.Module) -> None:
    parts = [images(0), images(1)[:5]]
    found = fixres.moments(network, parts[0]) + fixres.moments(network, parts[1])
    seen = features(network, torch.cat(parts)).double()
    assert found.images == 13
    torch.testing.assert_close(found.mean_C, seen.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.deviation_C, seen.std(0, correction=0), rtol=1e-4, atol=1e-6)


def both_sizes(network: nn.Module) -> tuple[Moments, Moments]:
    """The moments at the train size and at the test size."""
    train, test = (fixres.moments(network, torch.cat([images(it, size) for it in range(4)])) for size in (20, 28))
    return train, test


def test_the_folded_map_equals_the_map_on_the_features(network: nn.Module) -> None:
    train, test = both_sizes(network)
    pixels = images(9)
    seen = features(network, pixels)
    mapped = train.mean_C + train.deviation_C / test.deviation_C * (seen - test.mean_C)
    with torch.inference_mode():
        wanted = network.fc(mapped.float())
        before = network(pixels)
    fixres.fold(network, train, test)
    with torch.inference_mode():
        torch.testing.assert_close(network(pixels), wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, wanted, atol=1e-3)


def test_the_map_takes_the_frechet_distribution_of_the_test_size_to_that_of_the_train_size(network: nn.Module) -> None:
    """Quantiles onto quantiles, of the distribution with those means and deviations, whose shape the paper fixes."""
    train, test = both_sizes(network)
    xi, levels = 0.3, torch.linspace(0.05, 0.95, 7).double()[:, None]

    def quantiles(of: Moments) -> Tensor:
        """Of F(x) = exp(-(1 + xi / sigma (x - mu)) ** (-1 / xi)), (levels, channels)."""
        gamma = [torch.exp(torch.lgamma(torch.tensor(1 - k * xi).double())) for k in (1, 2)]
        sigma = of.deviation_C * xi / (gamma[1] - gamma[0] ** 2).sqrt()
        mu = of.mean_C - sigma * (gamma[0] - 1) / xi
        return mu + sigma / xi * ((-levels.log()) ** -xi - 1)

    mapped = train.mean_C + train.deviation_C / test.deviation_C * (quantiles(test) - test.mean_C)
    torch.testing.assert_close(mapped, quantiles(train))


def test_a_size_that_changes_nothing_leaves_the_network(network: nn.Module) -> None:
    same, before = fixres.moments(network, images(0)), copy.deepcopy(network)
    fixres.fold(network, same, same)
    torch.testing.assert_close(network.state_dict(), before.state_dict())


@pytest.mark.parametrize("variant", ["statistics", "head_and_norm"])
def test_a_network_without_batch_norm_is_refused_where_one_is_needed(variant: Variant) -> None:
    made = timm.create_model("convnext_atto", num_classes=3, depths=[1, 1, 1, 1], dims=[8, 8, 8, 8])
    with pytest.raises(InputError, match=rf"fixres\.variant = {variant}: ConvNeXt has no batch norm.*head or affine"):
        fixres.prepare(made, variant)
    fixres.prepare(made, "head")
    assert {name for name, it in made.named_parameters() if it.requires_grad} == {"head.fc.weight", "head.fc.bias"}


def test_a_network_without_one_classifier_is_refused() -> None:
    made = timm.create_model("resnet10t", num_classes=0, **SMALL)
    with pytest.raises(InputError, match=r"fixres: ResNet has no single classifier"):
        fixres.prepare(made, "head")


def test_a_channel_that_is_the_same_on_all_images_is_moved_and_not_stretched(network: nn.Module) -> None:
    train, test = both_sizes(network)
    still = Moments(test.images, test.total_C.clone(), test.squares_C.clone())
    still.squares_C[0] = still.total_C[0] ** 2 / still.images
    before = network.fc.weight.detach().clone()
    fixres.fold(network, train, still)
    assert torch.equal(network.fc.weight[:, 0], before[:, 0])
    assert not torch.equal(network.fc.weight[:, 1], before[:, 1])


def test_a_classifier_that_is_not_linear_takes_no_map() -> None:
    made = timm.create_model("resnetv2_18", num_classes=3, channels=[8, 8, 8, 8])
    with pytest.raises(
        InputError, match=r"fixres\.variant = affine: the classifier is Conv2d, expected a linear layer"
    ):
        fixres.linear(made)
