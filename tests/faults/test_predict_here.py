"""A prediction in one process, without Ray: stopped, or ended by an image, the same command gets past it."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.in_process import undated
from support.networks import SMALL, trained
from support.tiny_run import faulty

from ray_ns.config import Data, Model
from ray_ns.exits import STOPPED
from ray_ns.models.files import to_files

ALONE = """
import sys
from ray_ns.exits import guarded
from ray_ns.cli import command_line
code = guarded(command_line, sys.argv[1:])
loaded = sorted(name for name in sys.modules if name.partition(".")[0] == "ray")
assert loaded == [], loaded
sys.exit(code)
"""


class Case:
    """A network, twenty images in a folder, and the command that labels them, in a process without Ray."""

    def __init__(self, folder: Path, images: list[bytes]) -> None:
        self.folder, self.images = folder, images
        given = {"labelled": "l", "pool": "p", "classes": 3, "size": 16, "channels": 1, "mean": [0.5], "std": [0.25]}
        data = Data.model_validate(given)
        for place in ("network", "source"):
            (folder / place).mkdir()
        for name, content in to_files(trained(Model(name="resnet10t", args=SMALL), data), data).items():
            (folder / "network" / name).write_bytes(content)
        for number, image in enumerate(images):
            (folder / f"source/{number:02d}.png").write_bytes(image)

    def words(self, output: str, seconds: float = 1.5) -> list[str]:
        words = ["predict", "network", "source", "-o", output, "label.slice_rows=4", f"label.image_seconds={seconds}"]
        return [sys.executable, "-c", ALONE, *words]

    def environment(self, fault: str | None) -> dict[str, str]:
        return {**os.environ, **faulty(fault), "TMPDIR": str(self.folder)}

    def predict(self, output: str, fault: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(output),
            cwd=self.folder,
            env=self.environment(fault),
            capture_output=True,
            text=True,
            timeout=120,
        )

    def labels(self, output: str) -> pa.Table:
        (file,) = (self.folder / f"{output}.run/label/data").rglob("labels.parquet")
        return pq.read_table(file).replace_schema_metadata(None)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    import io

    import numpy as np
    from PIL import Image

    torch.set_num_threads(1)
    images = []
    for pixels in np.random.default_rng(0).integers(0, 256, (20, 16, 16)).astype(np.uint8):
        sink = io.BytesIO()
        Image.fromarray(pixels).save(sink, "PNG")
        images.append(sink.getvalue())
    return Case(tmp_path_factory.mktemp("here"), images)


@pytest.fixture(scope="module")
def undisturbed(case: Case) -> pa.Table:
    done = case.predict("whole.csv")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "labelled in this process, without Ray" in done.stderr
    return case.labels("whole.csv")


@pytest.mark.parametrize(("kind", "row", "code"), [("crashes_decoder", 6, -signal.SIGSEGV), ("too_slow", 13, 1)])
def test_an_image_that_ends_the_command_costs_itself_and_the_same_command_again(
    case: Case, undisturbed: pa.Table, kind: str, row: int, code: int
) -> None:
    digest = hashlib.sha256(case.images[row]).hexdigest()
    fault = f"decode:{digest}:none" if kind == "crashes_decoder" else f"decode:none:{digest}"
    assert case.predict(f"{kind}.csv", fault).returncode == code
    again = case.predict(f"{kind}.csv", fault)
    assert again.returncode == 0, again.stderr[-2000:]
    found = case.labels(f"{kind}.csv")
    assert found["quarantine"].to_pylist() == [kind if it == row else None for it in range(20)]
    others = [it for it in range(20) if it != row]
    names = ["image_id", "label", "confidence", "top_label"]
    assert found.take(others).select(names).to_pydict() == undisturbed.take(others).select(names).to_pydict()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_prediction_says_so_and_goes_on(case: Case, undisturbed: pa.Table, number: signal.Signals) -> None:
    slow = hashlib.sha256(case.images[0]).hexdigest()
    output = f"stopped-{number}.csv"
    with subprocess.Popen(
        case.words(output, seconds=600),
        cwd=case.folder,
        env=case.environment(f"decode:none:{slow}"),  # never ends, so that the signal surely comes before its end
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "label: begins" in line:
                break
        process.send_signal(number)
        said = process.stderr.read()
    assert (process.returncode, undated(said, 3)) == (3, f"ray-ns: {STOPPED}\n"), said
    for left in case.folder.glob("ray_ns-decoding-*/*"):
        left.unlink()  # the note that an image was being decoded: here it was no image's fault
    assert case.predict(output).returncode == 0
    commits = [case.folder / f"{it}.run/label/commit.json" for it in (output, "whole.csv")]
    assert commits[0].read_bytes() == commits[1].read_bytes()
