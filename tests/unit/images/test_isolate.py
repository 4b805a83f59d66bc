"""A decoder that dies or hangs, in processes of their own."""

import os
import stat
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from ray_ns.errors import InputError
from ray_ns.images.decode import Decode, Reason
from ray_ns.images.isolate import SafeDecode, isolated

INJECT = Path(__file__).parents[2] / "faults" / "inject"
SECONDS = 1.0
decode = Decode(8, 1)


@pytest.fixture
def images(pictures) -> list[bytes | None]:
    return [*pictures(6), None, b"no image"]


@pytest.fixture
def broken(images: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """In child processes, the second image kills its decoder and the fifth never ends."""
    crashes, hangs = (sha256(images[at]).hexdigest() for at in (1, 4))
    monkeypatch.setenv("RAY_NS_FAULT", f"decode:{crashes}:{hangs}")
    monkeypatch.setattr(sys, "path", [str(INJECT), *sys.path])


def assert_same(found, expected) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, Reason):
            assert one is other
        else:
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "decode", [decode, Decode(8, 1, "crop"), Decode(8, 1, "crop", 40, "bicubic")], ids=["squash", "crop", "paper"]
)
def test_isolated_decoding_is_decoding(images: list[bytes | None], decode: Decode) -> None:
    assert_same(list(isolated(decode, SECONDS, images)), list(map(decode, images)))


def test_only_the_bad_images_pay_in_isolation(images: list[bytes | None], broken: None) -> None:
    expected = [*map(decode, images)]
    expected[1], expected[4] = Reason.CRASHES, Reason.TOO_SLOW
    assert_same(list(isolated(decode, SECONDS, images)), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_that_ends_leaves_no_trace(tmp_path: Path, images: list[bytes | None], threads: int) -> None:
    safe = SafeDecode(decode, SECONDS, threads, tmp_path / "traces")
    outcomes = safe("run", images)
    first = next(outcomes)
    assert len(list((tmp_path / "traces").iterdir())) == 1
    assert_same([first, *outcomes], list(map(decode, images)))
    assert not list((tmp_path / "traces").iterdir())
    time.sleep(1.5 * SECONDS)  # an alarm that went on would end this process now


def test_another_jobs_run_is_not_taken_for_a_dead_one(tmp_path: Path, images: list[bytes | None]) -> None:
    held, other = (SafeDecode(decode, SECONDS, 1, tmp_path)("run", images) for _ in range(2))
    next(held)
    assert_same(list(other), list(map(decode, images)))
    assert len(list(tmp_path.iterdir())) == 1, "the first one's trace"
    list(held)
    assert not list(tmp_path.iterdir())


DECODER = """
import sys
from pathlib import Path
from ray_ns.errors import InputError
from ray_ns.images.decode import Decode, Reason
from ray_ns.images.isolate import SafeDecode

folder = Path(sys.argv[1])
images = [path.read_bytes() for path in sorted(folder.glob("*.image"))]
for outcome in SafeDecode(Decode(8, 1), 1.0, int(sys.argv[2]), folder / "traces")("run", images):
    print(outcome if isinstance(outcome, Reason) else "pixels", flush=True)
"""


def attempt(folder: Path, threads: int) -> subprocess.CompletedProcess[str]:
    """Decode the images in ``folder`` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", DECODER, str(folder), str(threads)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def test_the_successor_of_a_process_that_died_decodes_in_isolation(
    tmp_path: Path, images: list[bytes | None], broken: None
) -> None:
    for number, data in enumerate(images[:6]):
        (tmp_path / f"{number}.image").write_bytes(data or b"")
    assert attempt(tmp_path, 2).returncode != 0
    outcomes = ["pixels", "crashes_decoder", "pixels", "pixels", "too_slow", "pixels"]
    for _ in ("the second", "and a third, of the next round, without a death"):
        assert attempt(tmp_path, 2).stdout.split() == outcomes


def test_an_alarm_ends_a_process_whose_decoder_hangs(tmp_path: Path, images: list[bytes | None], broken: None) -> None:
    (tmp_path / "0.image").write_bytes(images[4] or b"")
    died = attempt(tmp_path, 1)
    assert died.returncode == 1
    assert "Timeout" in died.stderr
    assert "sitecustomize.py" in died.stderr, "where it hung"


def test_a_trace_folder_is_made_for_this_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new/traces"
    SafeDecode(decode, 1.0, folder=folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    SafeDecode(decode, 1.0, folder=folder)


@pytest.mark.parametrize("kind", ["link", "dangling link", "file", "open to others", "of another user"])
def test_a_trace_folder_that_others_may_have_laid_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder, elsewhere = tmp_path / "traces", tmp_path / "elsewhere"
    if kind == "link":
        elsewhere.mkdir(mode=0o700)
    if "link" in kind:
        folder.symlink_to(elsewhere)
    elif kind == "file":
        folder.write_text("x")
    else:
        folder.mkdir(mode=0o700)
        if kind == "open to others":
            folder.chmod(0o777)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(InputError, match=r"traces: is .*; expected a folder of user \d+ with mode 700\."):
        SafeDecode(decode, 1.0, folder=folder)
    assert not elsewhere.exists() or not list(elsewhere.iterdir())
