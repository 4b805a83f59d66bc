from pathlib import Path

import pytest
from support.tiny_run import ray_ns, report, write_tiny


class Finished:
    """One uninterrupted tiny run, shared by the tests that only read it."""

    def __init__(self, folder: Path) -> None:
        self.config = write_tiny(folder)
        self.run = folder / "run"
        self.done = ray_ns("run", str(self.config), "--json")
        self.report = report(self.done)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(tmp_path_factory.mktemp("finished"))
