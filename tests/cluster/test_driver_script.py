"""``cluster/kuberay/base/driver.sh`` on a real head: what KubeRay's operator would see of a driver that has left."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.nodes import ADDRESSES, DASHBOARD, Nodes, cluster

pytestmark = pytest.mark.cluster
SCRIPT = Path(__file__).parents[2] / "cluster/kuberay/base/driver.sh"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A head alone, as it is in a pod: its environment says where its dashboard listens."""
    there = {"RAY_API_SERVER_ADDRESS": f"http://{ADDRESSES}.2:{DASHBOARD}", "RAY_JOB_STOP_WAIT_TIME_S": "20"}
    with cluster(tmp_path_factory.mktemp("nodes"), workers=0, env=there) as running:
        yield running


@pytest.mark.parametrize(
    ("leaves", "status"), [("exit 0", "SUCCEEDED"), ("exit 2", "STOPPED"), ("exit 4", "STOPPED"), ("exit 3", "FAILED")]
)
def test_the_operator_retries_what_failed_and_not_what_was_stopped(
    head: Nodes, tmp_path: Path, leaves: str, status: str
) -> None:
    job = leaves.replace(" ", "-")
    (tmp_path / "driver").write_text(f"echo at work; {leaves}\n")
    head.submit("bash", str(SCRIPT), "bash", "driver", working_dir=tmp_path, job=job, wait=False)
    # As KubeRay's pod follows it: the pod fails, and with it the RayJob, where this leaves with another code than 0.
    log = head.run("ray", "job", "logs", "--follow", job, env={"RAY_ADDRESS": ""})
    assert "at work" in log.stdout
    assert ("this job is stopped and not retried" in log.stdout) == (status == "STOPPED")
    assert head.ended(job, 60) == status
