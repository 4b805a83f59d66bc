"""What an evaluation commits: the answers of each image by format, and nothing of images that are not there."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.ended_run import free
from support.judged import DATA, by_hand, network_files
from support.networks import trained

from ray_ns.artifacts.network import Network
from ray_ns.artifacts.scores import Scores
from ray_ns.config import Config, Model
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.predict import in_this_process
from ray_ns.engine.run import Run
from ray_ns.engine.stages.evaluate import Evaluate
from ray_ns.models.files import to_files
from ray_ns.observe import Reporter
from ray_ns.store.commit import Output
from ray_ns.store.commit import ensure as committed
from ray_ns.store.lease import Lease
from ray_ns.store.objects import LocalStore

LABELS = [0] * 10 + [1] * 10 + [2] * 10
Evaluated = Callable[..., Scores]


@pytest.fixture
def images(pictures: Callable[..., list[bytes]]) -> list[bytes]:
    made = pictures(30)
    made[4] = b""
    return made


@pytest.fixture
def evaluated(tmp_path: Path, images: list[bytes], write_corpus: Callable[..., Corpus], config: Config) -> Evaluated:
    """Evaluate a network on these validation images, and on as many test images or none."""
    corpus = write_corpus("test", [images[:15], images[15:]], [LABELS[:15], LABELS[15:]])

    def evaluate(format: int, test: bool = True, noised: bool = False, name: str = "resnet10t") -> Scores:
        store = LocalStore(tmp_path / f"run-{format}-{test}-{noised}")
        files = network_files() if name == "resnet10t" else dict(to_files(trained(Model(name=name), DATA), DATA))

        def network(output: Output) -> tuple[dict[str, Any], int]:
            output.publish(0, files, {})
            return {"parameters": 1, "size": DATA.size}, 1

        made = Network(committed(store, "rounds/0/train", {}, network, free))
        label = config.label.model_copy(update={"precision": "float32", "slice_rows": 8, "noised": noised})
        data = DATA.model_copy(update={"max_quarantined": 1.0})
        corpora = {"validation": corpus, "test": corpus if test else replace(corpus, shards=())}
        own = config.model_copy(update={"data": data, "label": label})
        with Run(own, store, corpora, (0,), Lease(store), Reporter("json"), format=format) as run:
            run.execute = in_this_process()
            return run.ensure("rounds/0/evaluate", Evaluate(made))

    return evaluate


def test_from_format_4_on_each_image_has_its_loss(evaluated: Evaluated, images: list[bytes]) -> None:
    scores = evaluated(4)
    halves = [by_hand(network_files(), images[at : at + 15], 8) for at in (0, 15)]
    probabilities, readable = (np.concatenate(it) for it in zip(*halves, strict=True))
    truth = np.array(LABELS)
    loss = np.where(readable, -np.log(probabilities[np.arange(30), truth]), np.nan)
    found = scores.answers("validation")
    assert found is not None
    assert found[1] is not None
    np.testing.assert_array_equal(found[0], (probabilities.argmax(1) == truth) & readable)
    np.testing.assert_allclose(found[1], loss, rtol=1e-5)
    summary = scores.commit.summary["test"]
    assert summary["nll"] == pytest.approx(np.nanmean(loss), rel=1e-5)
    assert (summary["unreadable"], "top5" in summary, scores.top5("test")) == (1, False, None)


def test_an_older_run_goes_on_without_it(evaluated: Evaluated) -> None:
    now, between, then = evaluated(5), evaluated(4), evaluated(3)
    table, before = now.predictions("test"), then.predictions("test")
    assert table is not None
    assert before is not None
    assert before.column_names == ["image_id", "truth", "label", "confidence"]
    assert table.drop_columns("loss").equals(before)
    assert then.answers("test") is not None
    keys = {"images", "unreadable", "top1", "calibration_error", "top1_per_class"}
    assert set(then.commit.summary["test"]) == keys
    differs = {"calibration_error"}  # from which an older run does not leave the image out that cannot be read
    assert {name for name in keys if now.commit.summary["test"][name] != then.commit.summary["test"][name]} == differs
    assert {name: between.commit.summary["test"][name] for name in keys} == then.commit.summary["test"]


def test_images_that_are_not_there_are_not_measured(evaluated: Evaluated) -> None:
    scores = evaluated(4, test=False)
    assert scores.top1("validation") is not None
    assert (scores.top1("test"), scores.images("test")) == (None, 0)
    assert scores.predictions("test") is None
    assert scores.answers("test") is None


def test_a_network_that_is_evaluated_is_not_built_with_the_noise_of_one_that_labels(
    evaluated: Evaluated, config: Config
) -> None:
    assert config.students[0].model.drop_path > 0
    name = "lcnetv2_small"  # takes no drop path
    plain, noised = (evaluated(5, noised=it, name=name).predictions("test") for it in (False, True))
    assert plain is not None
    assert plain.equals(noised)
