"""Too many unreadable images stop a stage loudly."""

import pytest

from ray_ns.config import Config
from ray_ns.engine.stages.label import check_quarantine
from ray_ns.errors import InputError


@pytest.mark.parametrize(
    ("rows", "reasons", "allowed"),
    [
        (100, {"empty": 1}, True),
        (100, {"empty": 1, "truncated": 1}, False),
        (99, {"empty": 1}, False),
        (0, {}, True),
        (1, {"empty": 1}, False),
        (1000, {}, True),
    ],
)
def test_more_than_the_allowed_share_is_refused_with_the_reasons(
    config: Config, rows: int, reasons: dict[str, int], allowed: bool
) -> None:
    if allowed:
        check_quarantine(config, "pool", rows, reasons)
        return
    with pytest.raises(InputError) as caught:
        check_quarantine(config, "pool", rows, reasons)
    for reason, count in reasons.items():
        assert f"{reason} {count}" in str(caught.value)
    assert "data.max_quarantined" in str(caught.value)
