"""The lines of ``ray-ns status``."""

import pytest

from ray_ns.report.terminal import status


def test_a_line_per_stage_and_then_the_driver(capsys: pytest.CaptureFixture[str]) -> None:
    stages = [
        {"stage": "rounds/1/label", "state": "committed", "parts": 12},
        {"stage": "rounds/1/train", "state": "under way", "parts": 0, "curve": [[8, 1.0, 0.5], [16, 0.9, 0.4]]},
    ]
    status.show({"stages": stages, "finished": False, "driver": "no driver at work"})
    assert capsys.readouterr().out.splitlines() == [
        "rounds/1/label       committed, 12 parts",
        "rounds/1/train       under way, top-1 40.0% at step 16, at best 50.0% at step 8",
        "no driver at work",
    ]
