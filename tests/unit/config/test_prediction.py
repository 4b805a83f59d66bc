"""What a prediction and an evaluation take over from the run whose network they use."""

import json
from typing import Any

import pytest
from support.settings import MINIMAL

from ray_ns.config import Config, Label, Settings
from ray_ns.config.labelling import OF_A_POOL, OF_A_STUDENT
from ray_ns.config.prediction import asked, labelled_by

LABEL = {"teachers": ["round", "/a/network"], "views": "flip", "temperature": 2.0, "slice_rows": 64}


def record(**label: Any) -> dict[str, Any]:
    config = Config.model_validate({**MINIMAL, "label": label})
    return {"format": 4, "config": json.loads(json.dumps(Settings().of(config)))}


@pytest.mark.parametrize("label", [LABEL, {"noised": True, "views": "flip", "temperature": 2.0, "slice_rows": 64}])
@pytest.mark.parametrize(("without", "temperature", "views"), [(OF_A_STUDENT, 2.0, "flip"), (OF_A_POOL, 1.0, "one")])
def test_what_a_student_learned_from_refuses_nobody_who_uses_its_run(
    label: dict[str, Any], without: tuple[str, ...], temperature: float, views: str
) -> None:
    taken = labelled_by(record(**label), without)
    data = {"labelled": "/images", "pool": "/images", "classes": 3}
    found = asked({"data": data, "label": taken}, []).label
    assert (found.temperature, found.views, found.slice_rows) == (temperature, views, 64)
    assert not found.noised
    assert not found.others


def test_a_network_is_evaluated_without_all_that_labels_of_a_pool_are_made_with() -> None:
    assert Label.model_validate({**LABEL, "keep": "full"}).of_one_network == Label(slice_rows=64, keep="full")
