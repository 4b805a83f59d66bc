"""The run directory: whose it is, and that the whole of it is as it was written."""

from pathlib import Path
from typing import Any

import pytest
from support.dying import Killed

from ray_ns.config.results import changes
from ray_ns.errors import InputError, IntegrityError, ResumableError
from ray_ns.seals import seal
from ray_ns.store import layout
from ray_ns.store.commit import Output, ensure
from ray_ns.store.objects import LocalStore
from ray_ns.store.status import existing
from ray_ns.store.verify import verify

CONFIG: dict[str, Any] = {"run": {"seed": 0}, "student": {"optimizer": {"lr": 0.1, "name": "sgd"}, "steps": 400}}
CORPORA: dict[str, Any] = {"pool": [{"path": "a.parquet", "size": 10}]}


def free() -> None:
    """A fence nobody has run into."""


def owner(store: LocalStore, config: dict[str, Any]) -> bool:
    """Whether the run has begun with ``config``; refused where it has with another."""
    return layout.check_owner(store, lambda record: changes(record, config))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


@pytest.fixture
def begun(store: LocalStore) -> LocalStore:
    """A run with a committed stage of two parts, and one that is under way."""
    layout.begin(store, CONFIG, CORPORA, free, layout.Classes(10))

    def work(stage: Output) -> tuple[dict[str, Any], int]:
        for part in range(2):
            stage.publish(part, {"labels.bin": bytes([part]) * 30}, {})
        return {}, 2

    ensure(store, "rounds/1/label", {"seed": 0}, work, free)
    store.put("rounds/1/select/plan.json", seal({"stage": "rounds/1/select", "inputs": {}}))
    Output(store, "rounds/1/select", free).publish(0, {"selection.bin": b"half way"}, {})
    return store


def test_a_new_place_belongs_to_nobody(store: LocalStore) -> None:
    assert owner(store, CONFIG) is False
    assert list(store.list("")) == []


def test_a_run_knows_its_own_config_and_corpora(begun: LocalStore) -> None:
    assert owner(begun, CONFIG) is True
    assert layout.read(begun, layout.corpora_key(1)) == {"format": layout.FORMAT, "corpora": CORPORA}


def test_another_config_is_refused_with_every_setting_that_differs(begun: LocalStore) -> None:
    other = {"run": {"seed": 1}, "student": {"optimizer": {"lr": 0.2, "name": "sgd"}, "steps": 400, "ratio": 3}}
    with pytest.raises(InputError) as caught:
        owner(begun, other)
    message = str(caught.value)
    for row in ("run.seed: 0 -> 1", "student.optimizer.lr: 0.1 -> 0.2", "student.ratio: None -> 3"):
        assert row in message
    for same in ("steps", "name"):
        assert same not in message
    assert begun.url in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("number", [0, layout.FORMAT + 1])
def test_a_run_in_another_format_is_refused_with_what_helps(store: LocalStore, number: int) -> None:
    store.put(layout.RUN, seal({"format": number, "settings": "in another shape"}))
    for asked in (
        lambda: owner(store, CONFIG),
        lambda: layout.settings(store),
        lambda: existing(store.url),
        lambda: list(verify(store)),
    ):
        with pytest.raises(InputError, match=rf"format {number}; .* Use the version that wrote it, or a newer one"):
            asked()


@pytest.mark.parametrize("number", layout.READ)
def test_a_run_that_grows_stays_in_its_format(store: LocalStore, number: int) -> None:
    for key, value in ((layout.corpora_key(1), {"corpora": CORPORA}), (layout.RUN, {"config": CONFIG})):
        store.put(key, seal({"format": number, **value}))
    assert owner(store, CONFIG) is True
    layout.grow(store, {"pool": []}, 2, free)
    assert layout.read(store, layout.corpora_key(2)) == {"format": number, "corpora": {"pool": []}}
    assert [key for key, fault in verify(store) if fault] == []


def test_a_harmed_run_record_is_an_integrity_error(begun: LocalStore) -> None:
    data = begun.get(layout.RUN) or b""
    begun.put(layout.RUN, data.replace(b'"seed":0', b'"seed":1'))
    with pytest.raises(IntegrityError, match=r"run\.json"):
        owner(begun, CONFIG)


def test_a_run_killed_while_it_begins_can_begin_again(store: LocalStore) -> None:
    class DiesBeforeRun(LocalStore):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            if key == layout.RUN:
                raise Killed
            return super().put_if_absent(key, data)

    with pytest.raises(Killed):
        layout.begin(DiesBeforeRun(store.root), CONFIG, CORPORA, free, layout.Classes(10))
    assert owner(store, CONFIG) is False
    layout.begin(store, CONFIG, CORPORA, free, layout.Classes(10))
    assert owner(store, CONFIG) is True


def test_a_driver_that_has_lost_its_lease_begins_nothing(store: LocalStore) -> None:
    def lost() -> None:
        raise ResumableError("another driver has taken over")

    with pytest.raises(ResumableError):
        layout.begin(store, CONFIG, CORPORA, lost, layout.Classes(10))
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    ("config", "corpora"), [({**CONFIG, "run": {"seed": 9}}, CORPORA), (CONFIG, {**CORPORA, "test": []})]
)
def test_begin_does_not_pass_over_what_another_driver_began_meanwhile(
    begun: LocalStore, config: dict[str, Any], corpora: dict[str, Any]
) -> None:
    with pytest.raises(InputError):
        layout.begin(begun, config, corpora, free, layout.Classes(10))


def test_begin_with_the_same_again_changes_nothing(begun: LocalStore) -> None:
    before = {key: begun.get(key) for key in begun.list("")}
    layout.begin(begun, CONFIG, CORPORA, free, layout.Classes(10))
    assert {key: begun.get(key) for key in begun.list("")} == before


def test_stages_are_those_that_have_a_plan(begun: LocalStore) -> None:
    assert list(layout.stages(begun)) == ["rounds/1/label", "rounds/1/select"]


def sealed_and_named(store: LocalStore) -> list[str]:
    """What verify answers for: all records, and the data that they name."""
    return list(store.list(""))


def test_verify_checks_every_record_and_everything_a_commit_names(begun: LocalStore) -> None:
    found = dict(verify(begun))
    assert set(found) == set(sealed_and_named(begun))
    assert set(found.values()) == {None}


@pytest.mark.parametrize("number", range(12))
def test_verify_finds_a_flipped_bit_in_each_of_them(begun: LocalStore, number: int) -> None:
    keys = sealed_and_named(begun)
    assert len(keys) == 12
    data = bytearray(begun.get(keys[number]) or b"")
    data[-2] ^= 1
    begun.put(keys[number], bytes(data))
    faults = {key: fault for key, fault in verify(begun) if fault is not None}
    assert list(faults) == [keys[number]]
    assert keys[number] in faults[keys[number]]


def test_verify_finds_a_missing_data_object(begun: LocalStore) -> None:
    key = next(iter(begun.list("rounds/1/label/data/")))
    begun.delete(key)
    assert [name for name, fault in verify(begun) if fault is not None] == [key]


def test_verify_answers_for_a_commit_whose_plan_is_lost(begun: LocalStore) -> None:
    begun.delete("rounds/1/label/plan.json")
    key = next(iter(begun.list("rounds/1/label/data/")))
    begun.put(key, b"rot")
    assert key in [name for name, fault in verify(begun) if fault is not None]


def test_verify_minds_no_files_that_are_not_the_runs(begun: LocalStore) -> None:
    begun.put("notes.txt", b"mine")
    (begun.root / "a note (1).txt").write_text("mine")
    begun.put("rounds/1/label/timing.json", b"{}")
    begun.put("rounds/1/label/data/000009-0123456789abcdef/done/x", b"of an attempt that died")
    assert {fault for _, fault in verify(begun)} == {None}
