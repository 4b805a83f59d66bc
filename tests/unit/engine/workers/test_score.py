"""The score of a network in training: that of an evaluation, whoever of the workers sees which image."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import tiny_training
from torch import nn

from ray_ns.config import Config
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.workers import score
from ray_ns.engine.workers.score import Score
from ray_ns.images.decode import Decode
from ray_ns.models.predictor import Teacher
from ray_ns.models.zoo import build

CPU = torch.device("cpu")


@pytest.fixture
def network(config: Config) -> nn.Module:
    torch.manual_seed(0)
    return build(config.student.model, config.data)


@pytest.fixture
def corpus(write_corpus: Callable[..., Corpus], pictures: Callable[..., list[bytes]]) -> Corpus:
    """Three shards of 10 images, one of them empty bytes."""
    shards = [pictures(10, seed) for seed in range(3)]
    shards[1][4] = b""
    return write_corpus("validation", shards, [[(row + shard) % 3 for row in range(10)] for shard in range(3)])


def right(config: Config, corpus: Corpus, network: nn.Module) -> np.ndarray:
    """Which images of the corpus the network gets right, bool (30,)."""
    encoded = [it for shard in corpus.shards for group in range(3) for it in corpus.open(shard).images(group)]
    blank = np.zeros((16, 16, 1), np.uint8)
    pixels = [Decode(16, 1)(it.as_py()) if it.as_py() else blank for it in encoded]
    teacher = Teacher(network, config.data, config.label.slice_rows, config.label.precision, CPU)
    found = teacher(np.stack(pixels)).argmax(1) == np.concatenate(corpus.labels(3))
    found[14] = False
    return found


def test_it_is_the_share_of_right_answers_and_an_unreadable_image_is_wrong(
    config: Config, corpus: Corpus, network: nn.Module
) -> None:
    wanted = right(config, corpus, network).mean()
    assert 0 < wanted < 1
    scored = Score(config, corpus, CPU)
    assert scored(network.train()) == wanted
    assert scored(network.train()) == wanted
    assert not network.training


def test_the_workers_have_every_image_once_between_them(config: Config, corpus: Corpus) -> None:
    shares = [Score(config, corpus, CPU, rank, 4)._images() for rank in range(4)]
    images, truth = Score(config, corpus, CPU)._images()
    assert np.array_equal(np.concatenate([share[0] for share in shares]), images)
    assert np.array_equal(np.concatenate([share[1] for share in shares]), truth)
    assert np.flatnonzero(truth < 0).tolist() == [14]


@pytest.mark.parametrize(("name", "value"), [("IMAGES", 6), ("BYTES", 6 * 256 + 255)])
def test_of_many_images_it_takes_some_evenly(
    config: Config, corpus: Corpus, network: nn.Module, monkeypatch: pytest.MonkeyPatch, name: str, value: int
) -> None:
    monkeypatch.setattr(score, name, value)
    assert Score(config, corpus, CPU)(network) == right(config, corpus, network)[::5].mean()


class Stubborn(nn.Module):
    """Answers with the class in its buffer, whatever it sees."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.register_buffer("label", torch.tensor(label))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(self.label, 3).float().expand(len(pixels), 3)


def two_workers(config: Config, corpus: Corpus, meet: Path, out: Any) -> None:
    import torch.multiprocessing as mp

    mp.start_processes(one_of, (config, corpus, meet, out), 2, start_method="fork")


def one_of(rank: int, config: Config, corpus: Corpus, meet: Path, out: Any) -> None:
    os.environ.update(GLOO_SOCKET_IFNAME="lo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    out.put(Score(config, corpus, CPU, rank, 2)(Stubborn(rank)))


def test_two_workers_agree_on_the_score_of_the_first_ones_network(
    config: Config, write_corpus: Callable[..., Corpus], pictures: Callable[..., list[bytes]], tmp_path: Path
) -> None:
    corpus = write_corpus("validation", [pictures(10)], [[0] * 9 + [1]])
    forks = tiny_training.forks()
    out = forks.Queue()
    process = forks.Process(target=two_workers, args=(config, corpus, tmp_path / "meet", out))
    process.start()
    found = [out.get(timeout=100) for _ in range(2)]
    process.join(100)
    assert found == [0.9, 0.9]
