"""Labels by several networks: each fed as it was trained, copied into the run, refused where it is another one."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.judged import DATA, NAMES, network_files, write_classes, write_network
from support.networks import SMALL, trained
from support.shards import write_as

from ray_ns.artifacts.labels import LABELS, Labels
from ray_ns.artifacts.member import Member
from ray_ns.config import Cluster, Config, Label, Model
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine import teachers
from ray_ns.engine.predict import in_this_process
from ray_ns.engine.run import Run
from ray_ns.engine.stages import label as labelling
from ray_ns.engine.stages.network import Copy
from ray_ns.engine.workers.slices import Reader, Slice, decode_slice, decoded, distinct, read_all
from ray_ns.errors import InputError
from ray_ns.images.decode import Decode
from ray_ns.models.files import from_files, to_files
from ray_ns.models.predictor import Teacher
from ray_ns.models.voting import Voting
from ray_ns.observe import Reporter
from ray_ns.store.commit import planned_inputs
from ray_ns.store.lease import Lease
from ray_ns.store.objects import LocalStore

ROWS = 8
FILES = network_files()
LARGER = DATA.model_copy(update={"size": 24, "mean": [0.2], "std": [0.3], "channels": 1})
Open = Callable[..., Run]


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a network of the same classes that sees larger images, normalised otherwise."""
    folder = tmp_path_factory.mktemp("larger")
    for name, content in to_files(trained(Model(name="resnet10t", args=SMALL), LARGER), LARGER, NAMES).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def images(pictures: Callable[..., list[bytes]]) -> list[bytes]:
    found = pictures(40)
    found[3] = b""
    return found


@pytest.fixture
def opened(images: list[bytes], tmp_path: Path) -> Open:
    own = Corpus.scan(str(write_classes(tmp_path / "own", images, [0, 1, 2, 2] * 10)), "image", "label", [], NAMES)
    pool = write_as("plain", tmp_path / "pool", images, ROWS)

    def open_(*others: Path, place: str = "run", **label: object) -> Run:
        told = {"slice_rows": ROWS, "precision": "float32", "teachers": ["round", *map(str, others)], **label}
        data = DATA.model_copy(update={"max_quarantined": 1.0})
        parts = {"data": data, "label": Label.model_validate(told), "cluster": Cluster()}
        store, corpora = LocalStore(tmp_path / place), {"validation": own, "test": own, "pool": pool}
        config = Config.model_construct(**parts)  # type: ignore[arg-type]
        return Run(config, store, corpora, (len(pool.shards),), Lease(store), Reporter("plain"), NAMES)

    return open_


def begun(run: Run) -> Run:
    with run:
        teachers.take(run, teachers.check(run))
    return run


def labelled(run: Run) -> tuple[Labels, tuple[Member, ...]]:
    with run:
        run.execute = in_this_process()
        teacher = run.ensure("rounds/0/train", Copy(FILES))
        others = teachers.members(run)
        return run.ensure("rounds/1/label", labelling.Label(teacher, counted=False, others=others)), others


def table(labels: Labels, run: Run) -> pa.Table:
    return pa.concat_tables([pq.read_table(pa.BufferReader(it.objects[LABELS].read(run.store))) for it in labels.parts])


def by_hand(folder: Path | None, images: list[bytes], temperature: float = 1.0) -> np.ndarray:
    """Probabilities of the images that can be read, decoded as that network wants them."""
    data, files = DATA, FILES
    if folder is not None:
        data, files = LARGER, {it.name: it.read_bytes() for it in folder.iterdir()}
    pixels = np.stack([Decode(data.size, 1)(it) for it in images if it])  # type: ignore[misc]
    how = ROWS, "float32", torch.device("cpu")
    return Teacher(from_files(dict(files)), data, *how, voting=Voting(temperature))(pixels)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_labels_are_the_mean_of_networks_each_fed_as_it_was_trained(
    opened: Open, images: list[bytes], larger: Path, temperature: float
) -> None:
    run = begun(opened(larger, temperature=temperature, keep="full"))
    labels, _ = labelled(run)
    wanted = (by_hand(None, images, temperature) + by_hand(larger, images, temperature)) / 2
    found = table(labels, run)
    confidence = found["confidence"].drop_null().to_numpy()
    np.testing.assert_allclose(confidence, wanted.max(1), atol=1e-5)
    np.testing.assert_array_equal(found["label"].drop_null().to_numpy(), wanted.argmax(1))
    assert not np.allclose(confidence, by_hand(None, images, temperature).max(1), atol=1e-3)
    assert found["quarantine"].drop_null().to_pylist() == ["empty"]
    assert labels.others == 1


def test_each_has_a_temperature_of_its_own(opened: Open, larger: Path) -> None:
    run = begun(opened(larger, temperature="auto"))
    with run:
        run.execute = in_this_process()
        (other,) = teachers.members(run)
    assert run.store.get("teachers/1/calibrate/commit.json") is not None
    fed = other.network.fed(run.config.data)
    assert (fed.size, fed.mean, fed.classes) == (24, [0.2], 3)


def test_a_folder_that_is_gone_is_not_needed(opened: Open, larger: Path, tmp_path: Path) -> None:
    lent = tmp_path / "lent"
    shutil.copytree(larger, lent)
    begun(opened(lent))
    shutil.rmtree(lent)
    labels, _ = labelled(opened(lent))
    other, _ = labelled(begun(opened(larger, place="other")))
    assert labels.digest == other.digest, "where it lies decides nothing"


def test_another_network_in_its_place_is_refused_by_name(opened: Open, larger: Path, tmp_path: Path) -> None:
    lent = tmp_path / "lent"
    shutil.copytree(larger, lent)
    begun(opened(lent))
    shutil.rmtree(lent)
    write_network(lent)
    with pytest.raises(InputError, match=r"label.teachers: model.safetensors in .*lent is another one than when"):
        labelled(opened(lent))


def test_another_list_is_refused(opened: Open, larger: Path, tmp_path: Path) -> None:
    second = write_network(tmp_path / "second", bias=1.0)
    labelled(begun(opened(larger)))
    with pytest.raises(InputError, match="began with more than these 0"):
        labelled(opened())
    with pytest.raises(InputError, match="second is none of those that the run began with"):
        labelled(opened(larger, second))


def test_a_start_that_was_killed_takes_the_rest_later(opened: Open, larger: Path) -> None:
    late, _ = labelled(opened(larger))
    early, _ = labelled(begun(opened(larger, place="other")))
    assert late.digest == early.digest


def test_other_classes_are_refused_by_name(opened: Open, tmp_path: Path) -> None:
    other = write_network(tmp_path / "other", names=("cat", "dog", "eagle"))
    with pytest.raises(InputError, match=r"class 2 of .*other is 'eagle', that of the labelled images 'eel'"):
        teachers.check(opened(other))
    four = DATA.model_copy(update={"classes": 4})
    (tmp_path / "four").mkdir()
    for name, content in to_files(trained(Model(name="resnet10t", args=SMALL), four), four, None).items():
        (tmp_path / "four" / name).write_bytes(content)
    with pytest.raises(InputError, match=r"four has 4 classes, data.classes is 3"):
        teachers.check(opened(tmp_path / "four"))
    with pytest.raises(InputError, match=r"label.teachers: .*nowhere: no network is here"):
        teachers.check(opened(tmp_path / "nowhere"))


def test_alone_the_records_are_as_they_were(opened: Open) -> None:
    run = opened()
    labels, others = labelled(run)
    assert others == ()
    assert "others" not in labels.commit.summary
    assert "others" not in (planned_inputs(run.store, "rounds/1/label") or {})


def test_both_layouts_see_the_same_pixels_and_read_what_is_alike_once(opened: Open, larger: Path) -> None:
    run = begun(opened(larger))
    own, (member,) = run.config.data, teachers.members(run)
    other, normalised = member.network.fed(own), own.model_copy(update={"mean": [0.1], "std": [0.9]})
    feeds = distinct(run.config, [own, other, normalised, other])
    assert [it.data.size for it in feeds] == [16, 24]
    row = Slice("pool", 0, 0, 0, 0, ROWS).as_row()
    batch = {name: np.array([value], object) for name, value in row.items()}
    there = decoded(decode_slice(batch, run.corpora, feeds))
    here = read_all([Reader(it) for it in feeds], run.corpora, Slice.of_row(row))
    assert there is not None
    for one, two in zip(there[0], here[0], strict=True):
        np.testing.assert_array_equal(one, two)
    assert [it.shape[1] for it in here[0]] == [16, 24]
    assert there[1:] == here[1:]
    assert here[1][3] == "empty"
