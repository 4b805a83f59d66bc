"""Networks of a finished run judged through Ray: the commits that judging in one process makes."""

from pathlib import Path

import pytest
from support.tiny_run import Finished, digests, files, ray_ns, report

pytestmark = pytest.mark.ray


def test_with_ray_the_commits_are_those_of_one_process(finished: Finished, tmp_path: Path) -> None:
    before = files(finished.run)
    words = ["evaluate", str(finished.run), "--on", "test", "--on", "fgsm:0.1", "--json"]
    alone = report(ray_ns(*words, "-o", str(tmp_path / "alone")))
    through = ray_ns(*words, "-o", str(tmp_path / "ray"), "cluster.address=local")
    assert "without Ray" not in through.stderr
    assert digests(tmp_path / "ray") == digests(tmp_path / "alone")
    assert report(through)["rows"] == alone["rows"]
    top1 = {row["turn"]: row["figures"]["top1"] for row in alone["rows"] if row["kind"] == "clean"}
    rounds = {row["round"]: row["test_top1"] for row in finished.report["rounds"]}
    assert top1 == {turn: rounds[turn] for turn in top1}, "as the run itself has evaluated them"
    assert len(top1) == 2
    assert files(finished.run) == before
