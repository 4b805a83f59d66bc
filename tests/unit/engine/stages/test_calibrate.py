"""A teacher's temperature: found on validation images, once, and what its labels are made with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from support.judged import DATA, NAMES, network_files, write_classes
from support.shards import write_as

from ray_ns.artifacts.calibration import Calibration, calibrations
from ray_ns.artifacts.labels import LABELS, Labels
from ray_ns.config import Config, Label
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.predict import in_this_process
from ray_ns.engine.run import Run
from ray_ns.engine.stages import calibrate
from ray_ns.engine.stages import label as labelling
from ray_ns.engine.stages.calibrate import Calibrate
from ray_ns.engine.stages.network import Copy
from ray_ns.errors import InputError
from ray_ns.evaluate.calibration import fit
from ray_ns.images.decode import Decode
from ray_ns.models.files import from_files
from ray_ns.observe import Reporter
from ray_ns.store.commit import planned_inputs
from ray_ns.store.lease import Lease
from ray_ns.store.objects import LocalStore

ROWS = 8
FILES = network_files()
Open = Callable[..., Run]


@pytest.fixture
def images(pictures: Callable[..., list[bytes]]) -> list[bytes]:
    """Sixty; the fourth is empty."""
    found = pictures(60)
    found[3] = b""
    return found


@pytest.fixture
def opened(images: list[bytes], tmp_path: Path) -> Open:
    """A run whose validation, test and pool hold the images; their classes are drawn."""
    truth = np.random.default_rng(0).integers(0, 3, 60).tolist()
    own = Corpus.scan(str(write_classes(tmp_path / "own", images, truth)), "image", "label", [], NAMES)
    pool = write_as("plain", tmp_path / "pool", images, ROWS)

    def open_(place: str = "run", **label: object) -> Run:
        asked = Label.model_validate({"slice_rows": ROWS, "precision": "float32", "keep": "full", **label})
        parts = {"data": DATA.model_copy(update={"max_quarantined": 1.0}), "label": asked}
        store, corpora = LocalStore(tmp_path / place), {"validation": own, "test": own, "pool": pool}
        config = Config.model_construct(**parts)  # type: ignore[arg-type]
        return Run(config, store, corpora, (len(pool.shards),), Lease(store), Reporter("plain"), NAMES)

    return open_


def calibrated(run: Run) -> tuple[Calibration, Labels]:
    with run:
        run.execute = in_this_process()
        teacher = run.ensure("rounds/0/train", Copy(FILES))
        stage = Calibrate(teacher)
        assert stage.place == "rounds/0/calibrate"
        found = run.ensure(stage.place, stage)
        labels = run.ensure("rounds/1/label", labelling.Label(teacher, counted=False, calibration=found))
        return found, labels


def logits_of(images: list[bytes]) -> np.ndarray:
    """Of the images that can be read, the network's own, computed here."""
    pixels = np.stack([Decode(16, 1)(it) for it in images if it])  # type: ignore[misc]
    shown = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().sub_(255 * 0.5).div_(255 * 0.25)
    with torch.no_grad():
        found: np.ndarray = from_files(dict(FILES))(shown).numpy()
    return found


def test_the_labels_are_made_with_the_temperature_of_the_validation_images(
    opened: Open, images: list[bytes], tmp_path: Path
) -> None:
    run = opened(temperature="auto")
    found, labels = calibrated(run)
    corpus = run.corpora["validation"]
    in_order = [it for shard in corpus.shards for it in corpus.open(shard).images(0).to_pylist() if it]
    ids = [images.index(it) for it in in_order]
    truth = np.random.default_rng(0).integers(0, 3, 60)[ids]
    logits = logits_of(images)
    mine = fit(logits[[at - (at > 3) for at in ids]], truth)
    assert mine.temperature != 1
    assert found.temperature == pytest.approx(mine.temperature, abs=2e-4)
    figures = found.figures(run.store)
    assert figures["test"]["before"]["images"] == 59
    assert figures["validation"]["after"]["nll"] <= figures["validation"]["before"]["nll"]
    table = pa.concat_tables(files_of(labels, run))
    confidence = table["confidence"].drop_null().to_numpy()
    expected = torch.softmax(torch.from_numpy(logits) / found.temperature, 1).max(1).values.numpy()
    np.testing.assert_allclose(confidence, expected, atol=2e-5)
    assert not np.allclose(confidence, torch.softmax(torch.from_numpy(logits), 1).max(1).values.numpy(), atol=1e-3)
    assert labels.temperature == found.temperature
    assert table.schema.metadata[b"temperature"] == f"{found.temperature:g}".encode()
    assert list(calibrations(run.store, ["rounds/0", "rounds/1"])) == ["rounds/0"]


def files_of(labels: Labels, run: Run) -> list[pa.Table]:
    import pyarrow.parquet as pq

    return [pq.read_table(pa.BufferReader(part.objects[LABELS].read(run.store))) for part in labels.parts]


def test_it_is_found_once_and_the_same_again(opened: Open) -> None:
    first, labels = calibrated(opened(temperature="auto"))
    again, same = calibrated(opened(temperature="auto"))
    anew, too = calibrated(opened("other", temperature="auto"))
    assert first.digest == again.digest == anew.digest
    assert labels.digest == same.digest == too.digest
    planned = planned_inputs(opened("other").store, "rounds/1/label")
    assert planned is not None
    assert planned["calibration"] == first.digest


def test_a_number_needs_no_stage_and_1_leaves_the_records_as_they_were(opened: Open) -> None:
    for place, temperature in (("one", 1.0), ("two", 2.0)):
        run = opened(place, temperature=temperature)
        with run:
            run.execute = in_this_process()
            teacher = run.ensure("rounds/0/train", Copy(FILES))
            labels = run.ensure("rounds/1/label", labelling.Label(teacher, counted=False))
        planned = planned_inputs(run.store, "rounds/1/label")
        assert planned is not None
        assert "calibration" not in planned
        assert ("temperature" in planned["label"]) is (temperature == 2)
        assert ("temperature" in labels.commit.summary) is (temperature == 2)
        metadata = files_of(labels, run)[0].schema.metadata
        assert (b"temperature" in metadata) is (temperature == 2)


def test_views_change_the_labels_and_their_records_and_no_temperature(opened: Open) -> None:
    first = opened(temperature="auto")
    one, plain = calibrated(first)
    run = opened("views", temperature="auto", views="ten_crops")
    other, labels = calibrated(run)
    assert other.temperature == one.temperature
    assert other.digest == one.digest, "it is found on one view"
    assert (plain.views, labels.views) == ("one", "ten_crops")
    confidences = [files_of(*it)[0]["confidence"].drop_null().to_numpy() for it in ((plain, first), (labels, run))]
    assert not np.allclose(*confidences)
    assert files_of(labels, run)[0].schema.metadata[b"views"] == b"ten_crops"


def test_too_few_validation_images_are_refused_beforehand(opened: Open, pictures: Callable, tmp_path: Path) -> None:
    calibrate.check(opened(temperature="auto"))
    few = write_classes(tmp_path / "few", pictures(29), [0, 1, 2] * 9 + [0, 1])
    for temperature in ("auto", 1.0):
        run = opened(temperature=temperature)
        run.corpora["validation"] = Corpus.scan(str(few), "image", "label", [], NAMES)
        if temperature == "auto":
            with pytest.raises(InputError, match="there are 29 validation images; a temperature is found on 30 or"):
                calibrate.check(run)
        else:
            calibrate.check(run)
