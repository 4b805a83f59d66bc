"""Clusters of several nodes that the tests of one file share, and what their nodes wrote, shown where a test fails."""

from collections.abc import Iterator

import pytest
from support.nodes import Nodes, cluster


@pytest.fixture(scope="module")
def nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A head without CPUs and two raylets of two CPUs; a file's ``CLUSTER`` (a dict) gives ``cluster`` other words."""
    with cluster(tmp_path_factory.mktemp("nodes"), **getattr(request.module, "CLUSTER", {})) as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    running = getattr(item, "funcargs", {}).get("nodes")
    if report.failed and isinstance(running, Nodes):
        report.sections.append(("what the nodes wrote", running.logs()))
    return report
