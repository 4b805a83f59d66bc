"""The stage ``fixres``: what it makes and keeps, which network goes on, where it goes on after a death. Without Ray."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.fan_out import InProcess
from support.tiny_run import write_tiny
from torch import nn

from ray_ns.artifacts.network import Network, fed_facts
from ray_ns.config import Data, Training
from ray_ns.engine.opening import drive
from ray_ns.engine.predict import in_this_process
from ray_ns.engine.run import Run
from ray_ns.engine.stages.fixres import Control, Fixres, Tuned
from ray_ns.engine.stages.train import Train
from ray_ns.engine.workers import mapping
from ray_ns.errors import ResumableError
from ray_ns.evaluate import fixed
from ray_ns.images.decode import Decode
from ray_ns.models import zoo
from ray_ns.models.files import from_files, to_files
from ray_ns.models.fixres import fold, moments
from ray_ns.store import commit

TURN = "rounds/0"
IN_IT = f"{TURN}/{Fixres.name}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("fixres"))


Opened = Callable[..., Run]


@pytest.fixture
def opened(tiny: Path, tmp_path: Path) -> Iterator[Opened]:
    """The run, in which images are labelled and tasks run in this process. ``looks`` counts networks that look."""
    under_way: list[Any] = []

    def open_it(variant: str, looks: list[int] | None = None, *more: str) -> Run:
        words = [f"run.dir={tmp_path / 'run'}", "data.size=20", "teacher.precision=float32", "label.precision=float32"]
        words.append(f"teacher.fixres={{size: 28, steps: 2, variant: {variant}}}")
        driven = drive(str(tiny), [*words, *more], "plain")
        run = driven.__enter__()
        under_way.append(driven)
        run.fan_out = InProcess

        def execute(run: Run, members: Any, *further: Any) -> Any:
            if looks is not None:
                looks.append(members[0].network.fed(run.config.data).size)
                if len(looks) == 3:
                    raise ResumableError("died")
            return in_this_process()(run, members, *further)

        run.execute = execute
        return run

    yield open_it
    for driven in under_way:
        driven.__exit__(None, None, None)


def pixels(run: Run, corpus: str, size: int, fed: Data | None = None) -> torch.Tensor:
    """All images of a corpus as the network sees them, float32 (n, 1, size, size), by the tests' own arithmetic."""
    found = run.corpora[corpus]
    decode, images = Decode.of(fed) if fed else Decode(size, 1), []
    for shard in found.shards:
        reader = found.open(shard)
        for group in range(len(reader.group_rows)):
            images += [torch.tensor(decode(it)) for it in reader.images(group).to_pylist()]
    return (torch.stack(images).permute(0, 3, 1, 2).float() / 255 - 0.13) / 0.31


def learned(run: Run, size: int) -> nn.Module:
    """A network that has the validation images by heart."""
    torch.manual_seed(0)
    network = zoo.build(run.config.teacher.model, run.config.data)
    images, truth = pixels(run, "validation", size), torch.from_numpy(run.corpora["validation"].labels(10)[0].copy())
    optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), truth).backward()
        optimizer.step()
    return network.eval()


def committed(run: Run, place: str, network: nn.Module, inputs: dict[str, Any], size: int) -> Network:
    def work(output: commit.Output) -> tuple[dict[str, Any], int]:
        output.publish(0, to_files(network, run.config.data.read_as(size=size)), {})
        return {"parameters": 1, "size": size}, 1

    return Network(commit.ensure(run.store, place, inputs, work, lambda: None))


def stage(run: Run, network: Network) -> Fixres:
    return Fixres(run.config.teacher, 0, network)


def test_the_map_of_the_classifier_is_made_kept_and_compared(opened: Opened, tmp_path: Path) -> None:
    run = opened("affine")
    before = learned(run, 20)
    network = committed(run, f"{TURN}/train", before, {}, 20)
    found = run.ensure(IN_IT, stage(run, network))
    sizes = {look: it["size"] for look, it in found.figures["looks"].items()}
    assert sizes == {fixed.BEFORE: 20, fixed.UNTUNED: 28, fixed.TUNED: 28}  # at 20 pixels the map changes nothing
    fold(before, *(moments(before, pixels(run, "labelled", size)) for size in (20, 28)))
    tuned = commit.find_commit(run.store, f"{IN_IT}/tuned")
    assert tuned is not None
    made = from_files({name: it.read(run.store) for name, it in Network(tuned).files.items()})
    torch.testing.assert_close(made.state_dict(), before.state_dict(), rtol=1e-4, atol=1e-5)
    assert Network(tuned).fed(run.config.data).size == 28
    assert found.network.commit == (tuned if found.figures["goes_on"] == fixed.TUNED else network.commit)
    folders = sorted((tmp_path / "run" / IN_IT / "data").iterdir())
    for look, folder in zip(fixed.CALLED, folders, strict=False):
        for name in fixed.SEEN:
            table = pq.read_table(folder / f"{name.replace('_', '-')}.parquet")
            right = [row["truth"] == row["label"] for row in table.to_pylist()]
            assert found.figures["looks"][look][name] == pytest.approx(sum(right) / len(right))
    said = before(pixels(run, "test", 28)).argmax(1)
    top1 = float((said == torch.tensor(run.corpora["test"].labels(10)[0])).float().mean())
    assert found.figures["looks"][fixed.TUNED]["test"] == pytest.approx(top1, abs=0.011)


CROPPED = "data.fit=crop", "teacher.crop_share=paper", "teacher.fixres.crop_share=1.0"


def test_the_corrected_network_has_the_crop_of_the_correction_and_no_other_network_has(opened: Opened) -> None:
    """Paper: 20 / 52 of the short side. The correction keeps all of it."""
    run = opened("affine", None, *CROPPED)
    own = run.config.teacher.used_on(run.config.data)
    assert (own.size, own.resized) == (20, 52)
    before = zoo.build(run.config.teacher.model, run.config.data).eval()
    files = to_files(before, own)

    def work(output: commit.Output) -> tuple[dict[str, Any], int]:
        output.publish(0, files, {})
        return {"parameters": 1, **fed_facts(run.config.data, own)}, 1

    network = Network(commit.ensure(run.store, f"{TURN}/train", {}, work, lambda: None))
    found = run.ensure(IN_IT, stage(run, network))
    tuned = commit.find_commit(run.store, f"{IN_IT}/tuned")
    assert tuned is not None
    corrected = Network(tuned)
    fed = corrected.fed(run.config.data)
    assert (fed.size, fed.resized, network.fed(run.config.data)) == (28, 28, own)
    assert json.loads(corrected.files["config.json"].read(run.store))["pretrained_cfg"]["crop_pct"] == 1.0
    fold(before, *(moments(before, pixels(run, "labelled", it.size, it)) for it in (own, fed)))
    made = from_files({name: it.read(run.store) for name, it in corrected.files.items()})
    torch.testing.assert_close(made.state_dict(), before.state_dict(), rtol=1e-4, atol=1e-5)
    untuned = from_files({name: it.read(run.store) for name, it in network.files.items()})
    seen = [(fixed.BEFORE, untuned, own), (fixed.UNTUNED, untuned, fed), (fixed.TUNED, made, fed)]
    for part, (look, by, images) in zip(found.commit.parts, seen, strict=True):
        table = pq.read_table(pa.BufferReader(part.objects["test.parquet"].read(run.store)))
        with torch.no_grad():
            sure = by(pixels(run, "test", images.size, images)).softmax(1).amax(1)
        assert part.facts["look"] == look
        torch.testing.assert_close(torch.tensor(table["confidence"].to_numpy()), sure, rtol=1e-3, atol=1e-4)


def test_the_correction_learns_from_its_crop_and_its_control_from_the_recipes(opened: Opened) -> None:
    run = opened("head", None, *CROPPED)
    network = committed(run, f"{TURN}/train", zoo.build(run.config.teacher.model, run.config.data), {}, 20)
    tuned, control = (kind(run.config.teacher, 0, network).plan(run).recipe for kind in (Tuned, Control))
    assert (tuned.trained_on(run.config.data).resized, tuned.used_on(run.config.data).resized) == (28, 28)
    assert (control.trained_on(run.config.data).resized, control.used_on(run.config.data).resized) == (52, 52)


def trained(run: Run, network: Network, recipe: Training, tuned: nn.Module, control: nn.Module) -> None:
    """The two trainings within the stage, as if Ray Train had made them."""
    for kind, made, size in ((Tuned, tuned, 28), (Control, control, 20)):
        committed(run, f"{TURN}/{kind.name}", made, kind(recipe, 0, network).inputs(run), size)


def test_a_network_that_validation_shows_to_be_worse_does_not_go_on(
    opened: Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    run = opened("head")
    good = learned(run, 20)
    network = committed(run, f"{TURN}/train", good, {}, 20)
    bad = zoo.build(run.config.teacher.model, run.config.data)
    trained(run, network, run.config.teacher, bad, good)
    found = run.ensure(IN_IT, stage(run, network))
    assert found.figures["goes_on"] == fixed.BEFORE
    assert found.network == network
    assert f"{IN_IT}: the corrected network is worse on the validation images" in capsys.readouterr().err
    assert found.figures["looks"][fixed.CONTROL] == found.figures["looks"][fixed.BEFORE]  # here the same network
    assert run.ensure(IN_IT, stage(run, network)) == found
    assert commit.find_commit(run.store, f"{IN_IT}/tuned") is not None  # both are kept


def test_a_comparison_that_died_goes_on_with_the_looks_that_are_left(opened: Opened) -> None:
    looks: list[int] = []
    run = opened("head", looks)
    good = learned(run, 20)
    network = committed(run, f"{TURN}/train", good, {}, 20)
    trained(run, network, run.config.teacher, good, good)
    with pytest.raises(ResumableError, match="died"):
        run.ensure(IN_IT, stage(run, network))
    assert run.ensure(IN_IT, stage(run, network)).figures["goes_on"] in {fixed.TUNED, fixed.BEFORE}
    assert looks == [20, 28, 28, 28, 20]


def test_another_correction_is_another_stage_and_the_same_training(opened: Opened) -> None:
    run = opened("head")
    network = committed(run, f"{TURN}/train", zoo.build(run.config.teacher.model, run.config.data), {}, 20)
    smoothed = run.config.teacher.fixres.model_copy(update={"label_smoothing": 0.1})
    one, other = stage(run, network), Fixres(run.config.teacher.model_copy(update={"fixres": smoothed}), 0, network)
    trainings = [Train(it.recipe, 0).inputs(run) for it in (one, other)]
    assert trainings[0] == trainings[1]
    assert one.inputs(run) != other.inputs(run)


def test_the_images_of_the_map_are_spread_over_the_corpus(opened: Opened) -> None:
    run = opened("affine")
    corpus = run.corpora["validation"]  # 100 images in one shard
    rows = [row for it in mapping.slices(corpus, "validation", 10, 4) for row in (it.first + it.in_group).tolist()]
    assert rows == list(range(0, 100, 10))
    assert sum(it.rows for it in mapping.slices(corpus, "validation", 1000, 64)) == 100
