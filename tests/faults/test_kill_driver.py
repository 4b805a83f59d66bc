"""SIGKILL of the driver at chosen moments, then the same command: the same end as without."""

import signal
from pathlib import Path

import pytest
from support.tiny_run import Finished, digests, faulty, ray_ns

pytestmark = pytest.mark.ray

# Where each kill falls; a run meets them in this order.
MOMENTS = {
    "training, between checkpoint and pointer": "before:rounds/0/train/checkpoints/.*/0000000[12]0-.*json:2",
    "training, network stored, not yet done": "before:rounds/0/train/done/:1",
    "evaluation, figures stored, not committed": "before:rounds/0/evaluate/commit.json:1",
    "labelling, first shard done": "after:rounds/1/label/done/:1",
    "labelling, between a shard's data and its record": "after:rounds/1/label/data/:1",
    "labelling, all done, not committed": "before:rounds/1/label/commit.json:1",
    "selection, first part stored": "after:rounds/1/select/data/:1",
    "student, after its first checkpoint": "after:rounds/1/train/checkpoints/.*json:1",
    "the report, before its commit": "before:report/commit.json:1",
}

SIX = (
    "training, between checkpoint and pointer",
    "labelling, first shard done",
    "labelling, between a shard's data and its record",
    "selection, first part stored",
    "student, after its first checkpoint",
    "the report, before its commit",
)


class Tiny:
    """The data of the uninterrupted run, and any number of runs on it."""

    def __init__(self, finished: Finished, folder: Path) -> None:
        self._config, self._folder = finished.config, folder
        self.end = digests(finished.run)

    def finish(self, name: str) -> dict[str, bytes]:
        """Run to the end; the commits."""
        ray_ns("run", str(self._config), f"run.dir={self._folder / name}")
        return digests(self._folder / name)

    def kill(self, name: str, fault: str) -> None:
        done = ray_ns("run", str(self._config), f"run.dir={self._folder / name}", env=faulty(fault), check=False)
        assert done.returncode == -signal.SIGKILL, f"{fault} was never reached\n{done.stderr[-2000:]}"


@pytest.fixture(scope="module")
def tiny(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(finished, tmp_path_factory.mktemp("killed"))


def test_killed_at_six_moments_in_a_row_a_run_ends_as_if_it_never_was(tiny: Tiny) -> None:
    # Not all nine, for the time it takes; `make chaos` kills at each of them.
    for moment in SIX:
        fault = MOMENTS[moment]
        tiny.kill("chain", fault)
    assert tiny.finish("chain") == tiny.end


@pytest.mark.chaos
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_once_a_run_ends_as_if_it_never_was(tiny: Tiny, moment: str) -> None:
    name = "".join(letter if letter.isalnum() else "-" for letter in moment)
    tiny.kill(name, MOMENTS[moment])
    assert tiny.finish(name) == tiny.end
