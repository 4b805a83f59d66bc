"""What a teacher tells of its work."""

import threading
import time
from typing import Any

import pytest
from support.measured import measured
from support.settings import MINIMAL

from ray_ns.config import Config
from ray_ns.engine.workers import teacher
from ray_ns.engine.workers.teacher import Busy, noise_of


def test_working_and_idling_add_up_to_the_time() -> None:
    with measured() as found:
        began = time.perf_counter()
        busy = Busy()
        for _ in range(3):
            time.sleep(0.02)
            with busy.on_slice():
                time.sleep(0.01)
        whole = time.perf_counter() - began
    waited, worked = found.total("ns_slice_wait_seconds"), found.total("ns_forward_seconds")
    assert waited >= 0.06
    assert worked >= 0.03
    assert waited + worked == pytest.approx(whole, abs=0.005)


def test_a_slice_that_comes_while_another_is_at_work_does_not_wait_nor_count_twice() -> None:
    inside, done = threading.Event(), threading.Event()
    with measured() as found:
        began = time.perf_counter()
        busy = Busy()

        def first() -> None:
            with busy.on_slice():
                inside.set()
                done.wait(5)

        thread = threading.Thread(target=first)
        thread.start()
        inside.wait(5)
        with busy.on_slice():
            done.set()
            thread.join()
            time.sleep(0.02)
        whole = time.perf_counter() - began
    assert found.times("ns_forward_seconds") == 2
    waited, worked = found.total("ns_slice_wait_seconds"), found.total("ns_forward_seconds")
    assert waited + worked == pytest.approx(whole, abs=0.005)


def test_an_image_of_another_corpus_is_neither_labelled_nor_in_quarantine() -> None:
    with measured() as found:
        teacher._count([None, "empty", None, "in_test", "empty", "truncated"])
    assert found.total("ns_images_labelled") == 2
    assert found.total("ns_images_quarantined", reason="empty") == 2
    assert found.total("ns_images_quarantined") == 3


@pytest.mark.parametrize(
    ("model", "rates"),
    [
        ({}, {"drop_rate": 0.0, "drop_path_rate": 0.0}),
        ({"dropout": 0.1}, {"drop_rate": 0.1, "drop_path_rate": 0.0}),
        ({"dropout": 0.1, "drop_path": 0.2}, {"drop_rate": 0.1, "drop_path_rate": 0.2}),
        ({"own_rates": True}, {}),
        ({"own_rates": True, "drop_path": 0.2}, {"drop_path_rate": 0.2}),
    ],
)
def test_a_teacher_is_noised_at_the_rates_that_its_student_has(model: dict[str, Any], rates: dict[str, float]) -> None:
    values = {**MINIMAL, "student": {**MINIMAL["student"], "model": {"name": "resnet10t", **model}}}
    assert noise_of(Config.model_validate(values)).rates == rates
