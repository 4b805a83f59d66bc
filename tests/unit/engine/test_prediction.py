"""Labels for new images without a run: the label stage's own, in this process, whatever dies and whatever is asked."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.aged import age
from support.dying import Killed, records
from support.in_process import Call, undated
from support.networks import SMALL, trained
from support.shards import KINDS, write_as

from ray_ns.artifacts.labels import LABELS, XXH3
from ray_ns.config import Data, Model
from ray_ns.engine import leftovers
from ray_ns.engine.prediction import predict_corpus
from ray_ns.errors import InputError
from ray_ns.export.labels import Labelled
from ray_ns.images.decode import Decode, Reason
from ray_ns.labels import schema
from ray_ns.models.files import from_files, to_files
from ray_ns.models.predictor import Teacher
from ray_ns.store.commit import find_commit
from ray_ns.store.objects import LocalStore
from ray_ns.store.verify import verify

ROWS, OVERRIDES = 8, ("label.slice_rows=8", "label.shard_rows=10", "label.precision=float32")
NAMES = ("cat", "dog", "eel")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like RUN/best: a network of three named classes for grey images of 16 x 16."""
    return write_network(tmp_path_factory.mktemp("network"))


def write_network(folder: Path, names: tuple[str, ...] | None = NAMES, bias: float = 0.0) -> Path:
    images = {"labelled": "l", "pool": "p", "classes": 3, "size": 16, "channels": 1, "mean": [0.5], "std": [0.25]}
    data = Data.model_validate(images)
    model = trained(Model(name="resnet10t", args=SMALL), data)
    with torch.no_grad():
        model.fc.bias += bias * torch.arange(3)
    for name, content in to_files(model, data, names).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def images(pictures: Callable[..., list[bytes]]) -> list[bytes]:
    """Thirty, one of them empty and one cut in half."""
    found = pictures(30)
    found[3], found[20] = b"", found[20][: len(found[20]) // 2]
    return found


@pytest.fixture
def source(images: list[bytes], tmp_path: Path) -> str:
    return write_as("plain", tmp_path / "source", images, ROWS).root


def predicted(network: Path | str, source: str, place: Path, *overrides: str) -> Labelled:
    return predict_corpus(str(network), source, str(place), [*OVERRIDES, *overrides], "plain")


def table(found: Labelled) -> pa.Table:
    """All label rows, in order."""
    parts = [(part.objects[LABELS], part.facts[XXH3]) for part in found.labels.parts]
    return pa.concat_tables([schema.from_parquet(it.read(found.store, check), it.key) for it, check in parts])


def by_hand(network: Path, images: list[bytes]) -> dict[str, list[Any]]:
    """Label and confidence of each image, decoded and labelled here one slice after the other."""
    files = {it.name: it.read_bytes() for it in network.iterdir()}
    given = {"labelled": "l", "pool": "p", "classes": 3, "size": 16, "channels": 1, "mean": [0.5], "std": [0.25]}
    data = Data.model_validate(given)
    teacher = Teacher(from_files(files), data, ROWS, "float32", torch.device("cpu"))
    decoded = [Decode(16, 1)(image) for image in images]
    blank = np.zeros((16, 16, 1), np.uint8)
    pixels = np.stack([blank if isinstance(it, Reason) else it for it in decoded])
    reasons = [str(it) if isinstance(it, Reason) else None for it in decoded]
    probabilities = np.concatenate([teacher(pixels[at : at + ROWS]) for at in range(0, len(images), ROWS)])
    rows = schema.label_table(np.arange(len(images)), probabilities, reasons, "top", 3)
    return rows.drop_columns(["image_id"]).to_pydict()


@pytest.mark.parametrize("kind", KINDS)
def test_the_labels_are_the_teachers_own_whatever_the_images_lie_in(
    kind: str, network: Path, images: list[bytes], tmp_path: Path
) -> None:
    corpus = write_as(kind, tmp_path / "images", images, ROWS)
    found = predicted(network, corpus.root, tmp_path / "out")
    assert table(found)["image_id"].to_pylist() == list(range(30))
    assert table(found).select(["label", "confidence", "quarantine", "top_label", "top_probability"]).to_pydict() == (
        by_hand(network, images)
    )
    assert found.labels.quarantine == {"empty": 1, "truncated": 1}
    assert found.names == NAMES


@pytest.mark.parametrize(
    ("override", "refused"),
    [
        ("label.temperature=auto", "a prediction has no validation images to find a temperature on"),
        ("label.teachers=[round,other]", "a prediction is of the network that it is given"),
    ],
)
def test_what_a_run_alone_has_is_refused(
    network: Path, source: str, tmp_path: Path, override: str, refused: str
) -> None:
    with pytest.raises(InputError, match=refused):
        predicted(network, source, tmp_path / "out", override)
    assert not (tmp_path / "out").exists()


def test_a_temperature_that_is_asked_for_is_used(network: Path, source: str, tmp_path: Path) -> None:
    plain = table(predicted(network, source, tmp_path / "plain", "label.keep=full"))
    hot = table(predicted(network, source, tmp_path / "hot", "label.keep=full", "label.temperature=3"))
    readable = plain["label"].drop_null()
    assert hot["label"].drop_null().equals(readable)
    cold, warm = (np.array(it["probability"].drop_null().to_pylist(), float) for it in (plain, hot))
    softer = cold ** (1 / 3)
    np.testing.assert_allclose(warm, softer / softer.sum(1, keepdims=True), atol=2e-3)


def test_killed_before_any_of_its_writes_it_ends_with_the_same_bytes(
    network: Path, source: str, tmp_path: Path, dying: Callable[..., list[str]]
) -> None:
    written = dying(None)
    assert len(predicted(network, source, tmp_path / "whole").labels.parts) == 3
    writes, whole, removed = len(written), records(tmp_path / "whole"), list[str]()
    for at in range(writes):
        dying(at)
        with pytest.raises(Killed):
            predicted(network, source, tmp_path / "killed")
        dying(None)
        if at % 3 == 0 and (tmp_path / "killed/run.json").exists():  # and days later cleared of what the kill left
            age(tmp_path / "killed")
            removed += [it.key for it in leftovers.remove(str(tmp_path / "killed"), "plain").old]
            assert {fault for _, fault in verify(LocalStore(tmp_path / "killed"))} == {None}
        predicted(network, source, tmp_path / "killed")
        assert records(tmp_path / "killed") == whole, f"killed before write {at}"
        shutil.rmtree(tmp_path / "killed")
    assert any("/data/" in it for it in removed)


def test_a_finished_prediction_is_only_read(network: Path, source: str, tmp_path: Path) -> None:
    first = predicted(network, source, tmp_path / "out")
    stats = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert predicted(network, source, tmp_path / "out").labels == first.labels
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == stats


def test_verify_walks_from_the_labels_to_the_network_and_finds_damage(
    network: Path, source: str, tmp_path: Path
) -> None:
    store = predicted(network, source, tmp_path / "out").store
    assert {fault for _, fault in verify(store)} == {None}
    for key in store.list(""):
        data = store.get(key) or b""
        if not key.startswith(("driver/heartbeat", "events", "places")) and not key.endswith(
            ("timing.json", "README.md")
        ):
            store.put(key, data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
            assert [name for name, fault in verify(store) if fault] == [key]
            store.put(key, data)


def test_verify_misses_the_network_that_labelled(network: Path, source: str, tmp_path: Path) -> None:
    store = predicted(network, source, tmp_path / "out").store
    shutil.rmtree(tmp_path / "out/network")
    (tmp_path / "out/register/network.json").unlink()
    (fault,) = [fault for _, fault in verify(store) if fault]
    assert "label/plan.json" in fault
    assert "(teacher), which no stage of the run has" in fault


def test_status_shows_it_and_that_it_is_finished(network: Path, source: str, tmp_path: Path, ray_ns: Call) -> None:
    predicted(network, source, tmp_path / "out")
    left = ray_ns("status", tmp_path / "out")
    assert left.out.splitlines() == [
        "network              committed, 1 parts",
        "label                committed, 3 parts",
        "finished",
    ]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("label.keep=hard", "predict.label.keep: 'top' -> 'hard'"),
        ("label.threads=2", "predict.label.threads: 1 -> 2"),
        ("data.image_column=picture", "predict.data.image_column: 'image' -> 'picture'"),
    ],
)
def test_other_settings_for_the_same_file_are_refused_by_name(
    network: Path, images: list[bytes], tmp_path: Path, override: str, said: str
) -> None:
    root = write_as("folder", tmp_path / "images", images).root
    predicted(network, root, tmp_path / "out")
    with pytest.raises(InputError, match=f"{said}. Give another -o") as caught:
        predicted(network, root, tmp_path / "out", override)
    assert str(caught.value).count("->") == 1
    predicted(network, root, tmp_path / "out", "label.image_seconds=9", "data.max_quarantined=0.5")


def test_another_network_for_the_same_file_is_refused(network: Path, source: str, tmp_path: Path) -> None:
    predicted(network, source, tmp_path / "out")
    (tmp_path / "other").mkdir()
    other = write_network(tmp_path / "other", bias=1.0)
    with pytest.raises(InputError, match=r"it differs in: predict\.weights: '\w{64}' -> '\w{64}'\. Give another -o"):
        predicted(other, source, tmp_path / "out")


def test_files_that_the_source_has_gained_are_told_and_left_out(
    network: Path, images: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(write_as("folder", tmp_path / "images", images).root)
    first = predicted(network, str(root), tmp_path / "out")
    (root / "later.png").write_bytes(images[0])
    capsys.readouterr()
    assert predicted(network, str(root), tmp_path / "out").labels == first.labels
    said = "SRC has gained 1 images, which are left out: another -o labels all there are\n"
    assert undated(capsys.readouterr().err) == said
    (root / "00000.png").write_bytes(images[1])
    with pytest.raises(InputError, match=r"00000\.png.* has changed"):
        predicted(network, str(root), tmp_path / "out")


def test_other_images_for_the_same_file_are_refused(
    network: Path, source: str, images: list[bytes], tmp_path: Path
) -> None:
    predicted(network, source, tmp_path / "out")
    other = write_as("tar", tmp_path / "other", images)
    with pytest.raises(InputError, match=r"To label other images, give another -o\.$"):
        predicted(network, other.root, tmp_path / "out")


def test_images_that_were_copied_are_compared_and_labelled_on(
    network: Path, source: str, tmp_path: Path, dying: Callable[..., list[str]]
) -> None:
    dying(14)
    with pytest.raises(Killed):
        predicted(network, source, tmp_path / "out")
    dying(None)
    assert find_commit(LocalStore(tmp_path / "out"), "label") is None
    (shard,) = Path(source).iterdir()
    shard.touch()
    assert predicted(network, source, tmp_path / "out").labels.quarantine == {"empty": 1, "truncated": 1}
    pq.write_table(pa.table({"image": [b"x" * 9]}), shard)
    with pytest.raises(InputError, match="has changed"):
        predicted(network, source, tmp_path / "out")


def test_a_network_whose_classes_have_no_names_is_said(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain").mkdir()
    found = predicted(write_network(tmp_path / "plain", None), source, tmp_path / "out")
    assert found.names is None
    assert "its classes have no names; their numbers are the labels" in capsys.readouterr().err


def test_nothing_but_unreadable_images_is_refused_with_the_reasons(
    network: Path, images: list[bytes], tmp_path: Path
) -> None:
    root = write_as("plain", tmp_path / "bad", [images[3], images[20]], ROWS).root
    with pytest.raises(InputError, match=r"2 of 2 images cannot be read \(empty 1, truncated 1\)"):
        predicted(network, root, tmp_path / "out")
    one = write_as("plain", tmp_path / "half", images[2:4], ROWS).root
    with pytest.raises(InputError, match=r"1 of 2 images .* data\.max_quarantined = 0\.4"):
        predicted(network, one, tmp_path / "half-out", "data.max_quarantined=0.4")
    assert predicted(network, one, tmp_path / "half-out").labels.quarantine == {"empty": 1}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.size=32"], "'data.size=32': not a setting of a prediction, which takes label.*, cluster.* and data.im"),
        (["teacher.steps=3"], "'teacher.steps=3': not a setting of a prediction"),
        (["pool=elsewhere"], "'pool=elsewhere': not a setting"),
        (["label={}"], "'label={}': not a setting"),
        (["label.slize_rows=3"], "label.slize_rows: unknown key, did you mean slice_rows?"),
        (["label.threads=0"], "label.threads: found 0"),
        (["label.actors=64", "cluster.cpus=2"], "make 65, the cluster has 2"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(
    network: Path, source: str, tmp_path: Path, words: list[str], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        predict_corpus(str(network), source, str(tmp_path / "out"), words, "plain")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_anothers_is_refused(network: Path, source: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"one is inside the other\. Give another -o, outside of SRC"):
        predicted(network, source, Path(source) / "x.csv.run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files \(notes\.txt\)\. Give another -o"):
        predicted(network, source, tmp_path / "full")


@pytest.mark.parametrize("what", ["nothing", "no weights", "garbage", "other weights"])
def test_a_network_that_is_none_is_refused_before_anything_is_written(
    what: str, network: Path, source: str, tmp_path: Path
) -> None:
    place = tmp_path / "given"
    if what != "nothing":
        shutil.copytree(network, place)
    if what == "no weights":
        (place / "model.safetensors").unlink()
    if what == "garbage":
        (place / "config.json").write_bytes(b"{")
    if what == "other weights":
        told = json.loads((place / "config.json").read_bytes())
        (place / "config.json").write_text(json.dumps(told | {"model_args": {"channels": [8, 8, 8, 8]}}))
    with pytest.raises(InputError, match=str(place)):
        predicted(place, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_command_writes_a_row_per_image_and_says_what_it_did_and_where(
    network: Path, images: list[bytes], tmp_path: Path, ray_ns: Call
) -> None:
    root = write_as("folder", tmp_path / "images", images).root
    file = tmp_path / "x.csv"
    left = ray_ns("predict", network, root, "-o", file, *OVERRIDES)
    assert (left.code, left.out) == (
        0,
        f"28 images labelled, 2 unreadable (empty 1, truncated 1): {file}; its run is {file}.run\n",
    )
    hand = by_hand(network, images)
    assert [it["path"] for it in rows(file)] == [f"{root}/{number:05d}.png" for number in range(30)]
    assert [it["label_name"] for it in rows(file)] == ["" if it is None else NAMES[it] for it in hand["label"]]
    assert [it["reason"] for it in rows(file)] == [it or "" for it in hand["quarantine"]]
    written = file.read_bytes()
    file.unlink()
    told = json.loads(ray_ns("predict", network, root, "-o", file, *OVERRIDES, "--json").out)
    assert file.read_bytes() == written
    assert {name: told[name] for name in ("images", "labelled", "unreadable", "file", "run")} == {
        "images": 30,
        "labelled": 28,
        "unreadable": {"empty": 1, "truncated": 1},
        "file": str(file),
        "run": f"{file}.run",
    }
    assert ray_ns("labels", f"{file}.run", "-o", tmp_path / "again.csv").code == 0
    assert (tmp_path / "again.csv").read_bytes() == written


def test_its_run_may_lie_elsewhere(network: Path, source: str, tmp_path: Path, ray_ns: Call) -> None:
    words = ("predict", network, source, "-o", tmp_path / "x.parquet", "--keep", tmp_path / "kept")
    assert ray_ns(*words).code == 0
    assert {it.name for it in tmp_path.iterdir()} == {"source", "x.parquet", "kept"}
    assert pq.read_table(tmp_path / "x.parquet")["row"].to_pylist() == list(range(30))


@pytest.mark.parametrize(
    ("source", "output", "said"),
    [
        ("source", "x.txt", "expected a file on this machine that ends in"),
        ("source", "s3://bucket/x.csv", "expected a file on this machine that ends in"),
        ("source", "none/x.csv", "there is no folder"),
        ("source", "source/x.csv", "one is inside the other. Give another -o, outside of SRC."),
        ("empty", "x.csv", "empty"),
        ("source/0.parquet", "x.csv", "is a file. Give the folder it lies in"),
        ("", "x.csv", ""),
    ],
)
def test_what_cannot_be_labelled_or_written_is_one_line(
    network: Path, source: str, output: str, said: str, images: list[bytes], tmp_path: Path, ray_ns: Call
) -> None:
    write_as("plain", tmp_path / "source", images, ROWS)
    (tmp_path / "empty").mkdir()
    place = output if "://" in output else tmp_path / output
    left = ray_ns(
        "predict", network, f"{tmp_path}/{source}" if source else "", "-o", place, "--keep", tmp_path / "kept"
    )
    assert left.code == 2
    assert left.err.count("\n") == 1
    assert said in left.err
    assert not (tmp_path / "kept").exists()
