"""Of runs that an earlier version began, in FORMAT 1: what a stage is made from has the digest that it had."""

from pathlib import Path

import pytest
from pydantic import Field
from support.format_1 import plans, unpack

from ray_ns.config import Config, Data, Settings
from ray_ns.config.read import load
from ray_ns.store import layout
from ray_ns.store.objects import LocalStore


class LaterData(Data):
    """``data`` as a later version may have it."""

    blur: float = Field(0.0, description="a new setting")


class Later(Config):
    data: LaterData


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("format_1"))


@pytest.mark.parametrize("run", ["finished", "half"])
@pytest.mark.parametrize("kind", [Config, Later])
def test_each_stage_is_made_from_the_settings_that_its_plan_names(folder: Path, run: str, kind: type[Config]) -> None:
    record = layout.record(LocalStore(folder / run))
    assert record is not None
    assert record["format"] == 1
    settings = Settings.of_run(record, kind)
    config = settings.completed(kind.model_validate(load(folder / "config.yaml").model_dump(exclude_unset=True)))
    assert settings.differences(record["config"], config) == []
    assert settings.of(config) == record["config"]
    sections = {"label": config.label, "data": config.data, "select": config.select}
    tuning = config.students[0].tuning
    recipes = [config.teacher, config.students[0], settings.completed(tuning) if tuning else None]
    found = set()
    for place, inputs in plans(folder / run).items():
        for name in sections.keys() & inputs.keys():
            assert settings.of(sections[name]) == inputs[name], place
            found.add(name)
        if "recipe" in inputs:
            made = [at for at, recipe in enumerate(recipes) if recipe and settings.of(recipe) == inputs["recipe"]]
            assert len(made) == 1, place
            found.add(f"recipe {made[0]}")
    everything = {*sections, "recipe 0", "recipe 1", "recipe 2"}
    assert found == (everything if run == "finished" else everything - {"recipe 2"})


def test_a_new_setting_with_another_value_than_its_default_is_refused_by_name(folder: Path) -> None:
    values = load(folder / "config.yaml").model_dump(exclude_unset=True)
    config = Later.model_validate({**values, "data": {**values["data"], "blur": 0.5}})
    record = layout.record(LocalStore(folder / "finished"))
    assert record is not None
    settings = Settings.of_run(record, Later)
    config = settings.completed(config)
    assert settings.differences(record["config"], config) == ["data.blur: 0.0 -> 0.5"]
    data = settings.of(config.data)
    assert data == {**record["config"]["data"], "blur": 0.5}
