"""ONNX and torch.export of a network: what they hold, how near they are to torch, and what is refused."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.ended_run import ended_run
from support.in_process import Call
from support.networks import MODELS, SMALL, outputs, trained

from ray_ns.config import Data, Model
from ray_ns.corpora.corpus import Corpus
from ray_ns.errors import InputError
from ray_ns.export.graphs import ALLOWED, OPSET, difference, graphs
from ray_ns.export.network import given
from ray_ns.export.samples import COUNT, sample
from ray_ns.models.files import CONFIG, to_files
from ray_ns.models.given import network_of

RESNET = Model(name="resnet10t", args=SMALL, dropout=0.1)


@pytest.fixture
def folder(data: Data, tmp_path: Path) -> Path:
    """A network's folder, without a run."""
    made = tmp_path / "network"
    made.mkdir()
    for name, content in to_files(trained(RESNET, data), data, ["a", "b", "c"]).items():
        (made / name).write_bytes(content)
    return made


@MODELS
def test_torch_export_gives_the_same_logits_for_any_batch(data: Data, model: Model, tmp_path: Path) -> None:
    network = trained(model, data)
    for name, content in to_files(network, data).items():
        (tmp_path / name).write_bytes(content)
    (made,) = graphs(given(str(tmp_path)), ["torch"])
    assert made.difference <= ALLOWED
    told = {CONFIG: ""}
    module = torch.export.load(io.BytesIO(made.file), extra_files=told).module()
    assert torch.allclose(outputs(module, data), outputs(network, data), atol=1e-5)
    assert told[CONFIG].encode() == (tmp_path / CONFIG).read_bytes()


def test_the_onnx_file_says_what_it_takes_and_how_it_is_fed(folder: Path, ray_ns: Call) -> None:
    done = ray_ns("export", str(folder), "--onnx", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["file"] == f"{folder}/model.onnx"
    assert told["difference"] <= ALLOWED
    assert told["images"] == f"{COUNT} random images (no run is given)"
    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model)
    assert [(it.domain, it.version) for it in model.opset_import] == [("", OPSET)]
    (images,), (logits,) = model.graph.input, model.graph.output
    shapes = [[size.dim_param or size.dim_value for size in it.type.tensor_type.shape.dim] for it in (images, logits)]
    assert (images.name, logits.name, shapes) == ("images", "logits", [["batch", 1, 16, 16], ["batch", 3]])
    facts = {it.key: it.value for it in model.metadata_props}
    assert facts[CONFIG].encode() == (folder / CONFIG).read_bytes()
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "model.onnx"}


def test_a_graph_that_differs_is_seen(data: Data, folder: Path) -> None:
    found = given(str(folder))
    network, images = network_of(found.files, "place"), sample(found).images

    def of(change: Callable[[np.ndarray], np.ndarray]) -> float:
        with torch.no_grad():
            return difference(network, lambda batch: change(network(torch.from_numpy(batch)).numpy()), images)

    assert of(lambda logits: logits) == 0
    assert of(lambda logits: logits + np.float32([0.01, 0, 0])) > ALLOWED
    assert of(lambda logits: logits * np.float32("nan")) == float("inf")
    assert of(lambda logits: logits + (len(logits) == 1) * np.float32([1, 0, 0])) > ALLOWED, "one image by itself"


@pytest.mark.parametrize(
    "wrong", [lambda program: ValueError("no such\noperator"), lambda program: None], ids=["error", "nothing"]
)
def test_what_cannot_be_exported_is_said_and_leaves_no_file(
    folder: Path, ray_ns: Call, monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., Exception | None]
) -> None:
    def export(program: object, *_: object, **__: object) -> None:
        if (error := wrong(program)) is not None:
            raise error

    monkeypatch.setattr(torch.onnx, "export", export)
    done = ray_ns("export", str(folder), "--onnx")
    assert done.code == 2
    assert f"{folder}: cannot be exported to ONNX (" in done.err
    assert "Use the network with timm." in done.err.splitlines()[-1]
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}


def test_other_probabilities_are_refused_and_leave_no_file(
    folder: Path, ray_ns: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.export.load

    def load(*given: object) -> torch.export.ExportedProgram:
        program = real(*given)  # type: ignore[arg-type]
        for weight in program.state_dict.values():
            weight.data.mul_(1.5) if weight.is_floating_point() else None
        return program

    monkeypatch.setattr(torch.export, "load", load)
    done = ray_ns("export", str(folder), "--torch")
    assert done.code == 2
    assert "model.pt2 would give other probabilities than torch: by" in done.err
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}


def test_without_the_extra_one_line_says_how_to_get_it(
    folder: Path, ray_ns: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = ray_ns("export", str(folder), "--onnx")
    assert (done.code, done.out) == (2, "")
    assert done.err == "ray-ns: --onnx: onnxruntime not installed. Run: pip install 'ray-ns[export]'\n"


def test_a_form_must_be_asked_for(folder: Path, ray_ns: Call) -> None:
    done = ray_ns("export", str(folder))
    assert done.code == 2
    assert "Give --onnx, --torch or both" in done.err


def test_a_run_is_compared_on_its_test_images_and_written_to_best(
    data: Data, tmp_path: Path, ray_ns: Call, write_corpus: Callable[..., Corpus], pictures: Callable[..., list[bytes]]
) -> None:
    test = write_corpus("test", [pictures(5), [b"", *pictures(40)]], [[0] * 5, [1] * 41])
    run = ended_run(tmp_path / "run", data, to_files(trained(RESNET, data), data), None, test)
    done = ray_ns("export", str(run.root), "--torch")
    assert done.code == 0, done.err
    assert done.out.startswith(f"{run.root}/best/model.pt2: torch.export; input 'images' float32 (batch,")
    assert done.out.endswith(f"{COUNT} images of the run's test set\n")
    assert (run.root / "best/model.pt2").exists()
    (run.root / "best/model.safetensors").write_bytes(b"another")
    done = ray_ns("export", str(run.root), "--torch")
    assert done.code == 2
    assert "best: is not the run's best network. Write it anew" in done.err
    assert ray_ns("export", str(run.root), "--torch", "-o", str(tmp_path / "other/place")).code == 0
    assert (tmp_path / "other/place/model.pt2").exists()


def test_a_run_whose_test_images_are_gone_is_compared_on_random_ones_and_says_so(
    data: Data, tmp_path: Path, write_corpus: Callable[..., Corpus], pictures: Callable[..., list[bytes]]
) -> None:
    test = write_corpus("test", [pictures(5)], [[0] * 5])
    run = ended_run(tmp_path / "run", data, to_files(trained(RESNET, data), data), None, test)
    (tmp_path / "test/00000.parquet").unlink()
    found = sample(given(str(run.root)))
    assert found.told.startswith(f"{COUNT} random images (the run's test set cannot be reached: ")
    (run.root / "places.json").unlink()
    assert sample(given(str(run.root))).told == f"{COUNT} random images (the run's test set has none that can be read)"
    assert found.images.shape == (COUNT, 1, 16, 16)


def test_images_are_normalised_as_the_teacher_does_it(data: Data, folder: Path) -> None:
    from ray_ns.models.predictor import Teacher

    found = given(str(folder))
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 16, 16, 1)).astype(np.uint8)
    network = network_of(found.files, "place")
    said = Teacher(network, found.data, COUNT, "float32", torch.device("cpu"))(pixels)
    with torch.no_grad():
        assert np.allclose(said, network(torch.from_numpy(sample(found).images)).softmax(1).numpy(), atol=1e-6)


@pytest.mark.parametrize("place", ["s3://bucket/run"])
def test_a_network_that_is_not_here_needs_a_folder(place: str) -> None:
    from ray_ns.export.network import Given, folder_for

    data = Data.model_validate({"labelled": "l", "pool": "p", "classes": 3})
    with pytest.raises(InputError, match="Say where the files go: -o FOLDER"):
        folder_for(Given(place, {}, data, None), None)
    assert folder_for(Given(place, {}, data, None), Path("here")) == Path("here")
