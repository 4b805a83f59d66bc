"""What the documents claim of methods on toy data is measured anew; each command fails where a claim does not hold."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.chaos
@pytest.mark.parametrize("name", ["reduced_mpl", "two_moons"])
def test_claims_hold(name: str) -> None:
    words = [sys.executable, "-m", f"benchmarks.{name}"]
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
