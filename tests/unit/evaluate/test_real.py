"""ReaL labels: which file they are of, and what counts as right."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ray_ns.errors import InputError
from ray_ns.evaluate.figures import of_table
from ray_ns.evaluate.intervals import wilson
from ray_ns.evaluate.kinds import KINDS
from ray_ns.evaluate.real import of_files, read


def test_labels_go_by_the_number_in_the_files_name() -> None:
    labels = [[5], [1, 2], []]
    names = ["n01/ILSVRC2012_val_00000003.JPEG", "ILSVRC2012_val_00000001_n01440764.JPEG", "ILSVRC2012_val_00000002"]
    assert of_files(names, labels) == [[], [5], [1, 2]]
    for name in ("cat.jpg", "ILSVRC2012_val_00000004.JPEG", "ILSVRC2012_val_00000000.JPEG"):
        with pytest.raises(InputError, match=f"{name}: is none of the 3 images"):
            of_files([name], labels)


@pytest.mark.parametrize("value", [{}, [1], [["a"]], [[3]], [[-1]], [[True]]])
def test_a_file_that_is_another_is_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / "real.json"
    with pytest.raises(InputError, match="cannot be read"):
        read(str(path), 3)
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"real\.json: (is not a list|names the class)"):
        read(str(path), 3)
    path.write_text("[[0, 2], []]")
    assert read(str(path), 3) == [[0, 2], []]


def test_any_of_an_images_labels_is_right_and_images_without_are_left_out() -> None:
    lists = pa.list_(pa.int16(), 1)
    rows = {
        "truth": pa.array([0, 0, 0, 0], pa.int16()),
        "label": pa.array([2, 1, 1, None], pa.int16()),
        "confidence": pa.array([0.9, 0.9, 0.9, None], pa.float32()),
        "loss": pa.array([1.0, 1.0, 1.0, None], pa.float32()),
        "top_label": pa.array([[2], [1], [1], None], lists),
        "real": pa.array([[0, 2], [], [0], [1]], pa.list_(pa.int16())),
    }
    judged = of_table(pa.table(rows))
    assert judged.accepted is not None
    assert judged.accepted.tolist() == [1, -1, 0, 0]
    found = KINDS["real"].figures({"clean": judged}, 3, None)
    assert (found["images"], found["left_out"], found["unreadable"]) == (3, 1, 1)
    assert found["top1"] == pytest.approx(1 / 3, abs=1e-6)
    assert found["top1_interval"] == pytest.approx(wilson(1 / 3, 3), abs=1e-6)
    assert np.array_equal(KINDS["real"].values({"clean": judged}), [True, False, False])
