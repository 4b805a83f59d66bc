"""A network that says NaN or infinite numbers is refused by its name, wherever it labels or is judged."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.judged import DATA, NAMES, network_files, write_classes, write_network
from support.shards import write_as

from ray_ns.artifacts.network import Network
from ray_ns.config import Config, Label
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.bench import Bench
from ray_ns.engine.evaluation import evaluate
from ray_ns.engine.predict import in_this_process, predict
from ray_ns.engine.prediction import predict_corpus
from ray_ns.engine.run import Run
from ray_ns.engine.stages.calibrate import Calibrate
from ray_ns.engine.stages.evaluate import Evaluate
from ray_ns.engine.stages.label import Label as Labelling
from ray_ns.engine.stages.network import Copy
from ray_ns.engine.stages.stage import Stage
from ray_ns.engine.workers.score import Score
from ray_ns.engine.workers.slices import Job, Piece
from ray_ns.errors import InputError
from ray_ns.evaluate.suites import corruption
from ray_ns.export.network import given
from ray_ns.models.files import from_files, to_files
from ray_ns.observe import Reporter
from ray_ns.store.lease import Lease
from ray_ns.store.objects import LocalStore
from ray_ns.train.step import NotFiniteError

ROWS = 8
VOID = pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
MEND = r"is of no use: train it anew, with a lower learning rate where it has diverged\."


def void_files(value: float) -> dict[str, bytes]:
    """A network one of whose logits is no finite number."""
    network = from_files(network_files())
    with torch.no_grad():
        network.fc.bias[1] = value
    return dict(to_files(network, DATA, NAMES))


def void_network(folder: Path, value: float) -> Path:
    write_network(folder)
    for name, content in void_files(value).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def folder(pictures: Callable[..., list[bytes]], tmp_path: Path) -> Path:
    """A folder per class; an image cannot be read."""
    images = pictures(9)
    images[4] = b""
    return write_classes(tmp_path / "images", images, [0, 0, 0, 1, 1, 1, 2, 2, 2])


@VOID
@pytest.mark.parametrize("on", ["", "fgsm:0.1@", "pgd:0.1:2@", "among@", "corruptions@", "perturbations@"])
def test_no_suite_gives_figures_of_it(folder: Path, tmp_path: Path, on: str, value: float) -> None:
    network = void_network(tmp_path / "void", value)
    with pytest.raises(InputError, match=rf"{network}: says NaN or infinite numbers of 8 of 8 images \(.*{MEND}"):
        evaluate(str(network), [f"{on}{folder}"], str(tmp_path / "out"), overrides=["label.slice_rows=8"], mode="plain")


@VOID
def test_it_labels_nothing(folder: Path, tmp_path: Path, value: float) -> None:
    network = void_network(tmp_path / "void", value)
    with pytest.raises(InputError, match=rf"{network}: says NaN or infinite numbers of 8 of 8 images \(pool\).*{MEND}"):
        predict_corpus(str(network), str(folder), str(tmp_path / "out"), ["label.slice_rows=8"], "plain")


@pytest.fixture
def opened(folder: Path, pictures: Callable[..., list[bytes]], tmp_path: Path) -> Callable[..., Run]:
    """A run whose validation and test images are those of the folder."""
    own = Corpus.scan(str(folder), "image", "label", [], NAMES)
    pool = write_as("plain", tmp_path / "pool", pictures(10), ROWS)

    def open_(format: int = 4) -> Run:
        label = Label.model_validate({"slice_rows": ROWS, "precision": "float32"})
        parts = {"data": DATA.model_copy(update={"max_quarantined": 1.0}), "label": label}
        config = Config.model_construct(**parts)  # type: ignore[arg-type]
        store, corpora = LocalStore(tmp_path / f"run-{format}"), {"validation": own, "test": own, "pool": pool}
        return Run(config, store, corpora, (1,), Lease(store), Reporter("plain"), NAMES, format=format)

    return open_


@VOID
@pytest.mark.parametrize("format", [2, 4])
@pytest.mark.parametrize("stage", [Evaluate, Calibrate, Labelling])
def test_a_run_does_not_go_on_with_it(
    opened: Callable[..., Run], stage: Callable[[Network], Stage], format: int, value: float
) -> None:
    with opened(format) as run:
        run.execute = in_this_process()
        network = run.ensure("rounds/0/train", Copy(void_files(value)))
        with pytest.raises(InputError, match=rf"run-{format}/rounds/0/train: says NaN or infinite numbers of .*{MEND}"):
            run.ensure("rounds/0/it", stage(network))


@VOID
def test_no_look_of_fixres_is_at_it(opened: Callable[..., Run], value: float) -> None:
    with opened() as run:
        run.execute = in_this_process()
        network = run.ensure("rounds/0/train", Copy(void_files(value)))
        shards = tuple(map(Piece, run.corpora["test"].shards))
        for view in ("clean", corruption("cifar-1", "fog", 3)):
            with pytest.raises(InputError, match=rf"of 8 of 8 images \(test, {view}\).*{MEND}"):
                list(predict(run, network, [Job("test", shards, view=view)]))


def test_one_frame_of_a_sequence_is_enough(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All frames but one are as they should be: the network cannot say what it sees there."""
    from ray_ns.models.predictor import Teacher

    network, calls = write_network(tmp_path / "network"), []
    whole = Teacher.__call__

    def call(self: Teacher, images: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
        calls.append(len(images))
        said = whole(self, images, among)
        return np.full_like(said, np.nan) if len(calls) == 20 else said

    monkeypatch.setattr(Teacher, "__call__", call)
    with pytest.raises(InputError, match=f"{network}: says NaN"):
        evaluate(str(network), [f"perturbations@{folder}"], str(tmp_path / "out"), mode="plain")


@VOID
def test_a_training_is_not_scored_by_it(config: Config, folder: Path, value: float) -> None:
    score = Score(config, Corpus.scan(str(folder), "image", "label", [], NAMES), torch.device("cpu"))
    with pytest.raises(NotFiniteError, match=r"NaN or infinite numbers of 8 of 9 validation images\. Lower"):
        score(from_files(void_files(value)))


@VOID
def test_check_tries_it_and_refuses(config: Config, folder: Path, tmp_path: Path, value: float) -> None:
    network = void_network(tmp_path / "void", value)
    bench = Bench(config, {}, given(str(network)))
    with pytest.raises(InputError, match=rf"{network}: says NaN or infinite numbers of 1 of 1 images .*{MEND}"):
        bench.labelled([(folder / "cat/000.png").read_bytes(), b""])


def test_what_it_says_of_an_unreadable_image_does_not_count(
    pictures: Callable[..., list[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its black pixels are no image, and whatever a network makes of them is thrown away."""
    from ray_ns.models.predictor import Teacher

    whole = Teacher.__call__

    def call(self: Teacher, images: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
        said = whole(self, images, among)
        said[(images == 0).all((1, 2, 3))] = np.nan
        return said

    monkeypatch.setattr(Teacher, "__call__", call)
    folder = write_classes(tmp_path / "images", [*pictures(5), b""], [0, 1, 2, 0, 1, 2])
    found = evaluate(str(write_network(tmp_path / "it")), [str(folder)], str(tmp_path / "out"), mode="plain")
    assert found.report["rows"][0]["figures"]["unreadable"] == 1


def test_where_no_image_can_be_read_nothing_is_said_of_any(opened: Callable[..., Run], folder: Path) -> None:
    for image in folder.rglob("*.png"):
        image.write_bytes(b"")
    run = opened()
    empty = Corpus.scan(str(folder), "image", "label", [], NAMES)
    run.corpora.update(validation=empty, test=empty)
    with run:
        run.execute = in_this_process()
        network = run.ensure("rounds/0/train", Copy(network_files()))
        assert run.ensure("rounds/0/calibrate", Calibrate(network)).temperature == 1
