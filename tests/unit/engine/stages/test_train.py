"""What a training is planned to be: the teacher's, a student's, the control's."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from support.settings import MINIMAL

from ray_ns.artifacts.network import Network
from ray_ns.artifacts.selection import Selection
from ray_ns.config import Config, GivenTeacher, Model
from ray_ns.engine.run import Run
from ray_ns.engine.stages import training
from ray_ns.engine.stages.network import Copy
from ray_ns.engine.stages.train import Train
from ray_ns.models.files import to_files
from ray_ns.models.zoo import build
from ray_ns.observe import Reporter
from ray_ns.store import layout
from ray_ns.store.lease import Lease
from ray_ns.store.objects import LocalStore

TEACHER, SELECTION = cast(Network, "the teacher"), cast(Selection, "the selection")


def run_of(folder: Path, format: int = layout.FORMAT, **student: Any) -> Run:
    values = {**MINIMAL, "student": {**MINIMAL["student"], **student}}
    store = LocalStore(folder)
    return Run(Config.model_validate(values), store, {}, (1,), Lease(store), Reporter("plain"), format=format)


@pytest.mark.parametrize("format", layout.READ)
@pytest.mark.parametrize("loss", ["mean", "sum"])
@pytest.mark.parametrize("ratio", [1, 5])
def test_the_control_weighs_its_loss_as_its_student_does(tmp_path: Path, format: int, loss: str, ratio: int) -> None:
    run = run_of(tmp_path, format, loss=loss, ratio=ratio)
    student = run.config.students[0]
    of_student = Train(student, 1, SELECTION, TEACHER).plan(run)
    control = Train(student, 3, None, TEACHER).plan(run)
    assert (of_student.batch, control.batch) == (student.batch, student.batch * (1 + ratio))
    assert of_student.weight == 1
    assert control.weight == (1 + ratio if loss == "sum" and format >= layout.FAITHFUL else 1)


@pytest.mark.parametrize("format", layout.READ)
@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_a_student_of_pseudo_labels_alone_and_its_control_weigh_their_loss_as_a_joint_one_does(
    tmp_path: Path, format: int, loss: str
) -> None:
    run = run_of(tmp_path, format, loss=loss, ratio=5, joint=False)
    weights = [Train(run.config.students[0], 1, it, TEACHER).plan(run).weight for it in (SELECTION, None)]
    assert weights == [6 if loss == "sum" and format >= layout.EXACT else 1] * 2


@pytest.mark.parametrize("format", layout.READ)
@pytest.mark.parametrize("init", ["scratch", "teacher"])
def test_the_control_begins_as_its_student_does(tmp_path: Path, format: int, init: str) -> None:
    run = run_of(tmp_path, format, init=init)
    student = run.config.students[0]
    warm = init == "teacher"
    assert Train(student, 1, SELECTION, TEACHER).plan(run).begin == (TEACHER if warm else None)
    began = Train(student, 3, None, TEACHER).plan(run).begin
    assert began == (TEACHER if warm and format >= layout.FAITHFUL else None)
    assert Train(run.config.teacher, 0).plan(run).begin is None


def test_a_control_of_another_network_than_round_0s_begins_with_new_weights(tmp_path: Path) -> None:
    run = run_of(tmp_path, init="teacher")
    larger = run.config.students[0].model.model_copy(update={"name": "resnet18"})
    student = run.config.students[0].model_copy(update={"model": larger})
    assert Train(student, 3, None, TEACHER).plan(run).begin is None
    assert Train(student, 2, SELECTION, TEACHER).plan(run).begin == TEACHER  # its teacher is of its own kind


@pytest.mark.parametrize(("name", "fits"), [("resnet10t", True), ("resnet18", False)])
def test_a_control_begins_with_a_teacher_that_was_given_where_its_shapes_fit(
    tmp_path: Path, name: str, fits: bool
) -> None:
    begun = run_of(tmp_path, init="teacher")
    data = begun.config.data.model_copy(update={"classes": 3})
    config = begun.config.model_copy(update={"data": data, "teacher": GivenTeacher.model_validate({"from": "/x"})})
    run = replace(begun, config=config)
    with run:
        files = to_files(build(Model(name="resnet10t"), data), data)
        given = run.ensure("rounds/0/network", Copy(files, data))
    student = config.students[0].model_copy(update={"model": Model(name=name)})
    assert Train(student, 3, None, given).plan(run).begin == (given if fits else None)
    assert Train(student, 1, SELECTION, TEACHER).plan(run).begin == TEACHER


@pytest.mark.parametrize(("weight", "named"), [(1, False), (4, True)])
def test_a_weight_is_named_in_the_inputs_where_it_is_another_than_1(tmp_path: Path, weight: int, named: bool) -> None:
    run = run_of(tmp_path, loss="sum" if named else "mean")
    run.corpora = cast(Any, {"labelled": type("Empty", (), {"shards": ()})()})
    inputs = Train(run.config.students[0], 3).inputs(run)
    assert inputs.get("weight") == (weight if named else None)


@pytest.mark.parametrize(
    ("method", "mpl", "anew"),
    [
        ("noisy_student", {}, False),
        ("uda", {}, False),
        ("meta_pseudo_labels", {}, True),
        ("meta_pseudo_labels", {"reduced": True}, True),
    ],
)
def test_a_training_by_feedback_that_an_earlier_version_began_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, mpl: dict[str, Any], anew: bool
) -> None:
    values = {
        **MINIMAL,
        "run": {**MINIMAL["run"], "method": method, "rounds": 1},
        "mpl": mpl,
        "label": {"keep": "full"},
    }
    store = LocalStore(tmp_path)
    run = Run(Config.model_validate(values), store, {}, (1,), Lease(store), Reporter("plain"))
    stage = Train(run.config.students[0], 1, None, TEACHER)
    places = []
    for lesson in (1, 2):
        monkeypatch.setattr(training, "LESSON", lesson)
        places.append(training.checkpoint_place(stage.plan(run).recipe, "rounds/1/train", {}))
    assert (places[0] != places[1]) == anew
