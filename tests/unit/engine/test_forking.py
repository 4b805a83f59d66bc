"""How a fork begins: with the other run's format, corpora and decisions; and what is refused."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import toy_stage
from support.dying import Killed
from support.in_process import Call, undated
from support.tiny_run import write_tiny

from ray_ns.engine.opening import drive
from ray_ns.engine.stages.digests import known_images
from ray_ns.errors import InputError
from ray_ns.seals import seal, unseal
from ray_ns.store import layout
from ray_ns.store.fork import FORK, ForkedStore
from ray_ns.store.objects import LocalStore

CORPORA = ("labelled", "validation", "test", "pool")
PLACE = "rounds/1/toy"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("forking"))


@pytest.fixture
def tiny(data: Path, tmp_path: Path) -> Path:
    """The config of a tiny run with data of its own."""
    shutil.copytree(data.parent / "data", tmp_path / "data")
    config = tmp_path / "tiny.yaml"
    config.write_text(data.read_text().replace(str(data.parent), str(tmp_path)))
    return config


def words(folder: Path, name: str, *more: str) -> list[str]:
    return [f"run.dir={folder / name}", *more]


def start(tiny: Path, name: str, *more: str, **how: Any) -> list[int]:
    """Drive a run as far as a toy stage, without Ray; the images of each of its pools."""
    with drive(str(tiny), words(tiny.parent, name, *more), "plain", **how) as run:
        known_images(run)
        assert run.ensure(f"{run.place}{PLACE}", toy_stage.Toy(upstream=20)) == 22
        run.taking.tell()
        return list(run.pools)


def records(run: Path) -> dict[str, bytes]:
    """Every record of a run but for the driver's and the register."""
    found = {path.relative_to(run).as_posix(): path.read_bytes() for path in sorted(run.rglob("*.json"))}
    return {
        name: it for name, it in found.items() if not name.startswith(("driver/", "register/")) and "timing" not in name
    }


def copied(record: dict[str, bytes]) -> dict[str, bytes]:
    return {name: it for name, it in record.items() if name.startswith("corpora-") or name.endswith("commit.json")}


def test_a_fork_takes_over_corpora_and_stages_and_says_it(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(tiny, "other")
    worked = toy_stage.worked
    capsys.readouterr()
    start(tiny, "own", "select.threshold=0.6", fork=str(tiny.parent / "other"))
    assert toy_stage.worked == worked
    other, own = records(tiny.parent / "other"), records(tiny.parent / "own")
    assert copied(own) == copied(other)
    assert unseal(own[FORK], FORK) == {"from": str(tiny.parent / "other")}
    assert unseal(own["run.json"], "")["config"]["select"] == {"threshold": 0.6}
    assert not list((tiny.parent / "own").rglob("data"))
    said = f"taken from {tiny.parent / 'other'}: 2 stages (digests, {PLACE})"
    assert said in undated(capsys.readouterr().err).splitlines()


def test_a_fork_is_what_a_run_from_nothing_is(tiny: Path) -> None:
    start(tiny, "other")
    start(tiny, "nothing", "select.threshold=0.6")
    start(tiny, "own", "select.threshold=0.6", fork=str(tiny.parent / "other"))
    own = records(tiny.parent / "own")
    own.pop(FORK)
    made = records(tiny.parent / "nothing")
    assert {name: it for name, it in made.items() if "/done/" not in name and "done/" not in name} == own


def test_a_fork_goes_on_with_the_same_command_and_without_the_word(tiny: Path) -> None:
    start(tiny, "other")
    start(tiny, "own", fork=str(tiny.parent / "other"))
    before = records(tiny.parent / "own")
    for how in ({"fork": str(tiny.parent / "other")}, {}):
        with drive(str(tiny), words(tiny.parent, "own"), "plain", **how) as run:  # type: ignore[arg-type]
            assert isinstance(run.store, ForkedStore)
    assert records(tiny.parent / "own") == before


@pytest.mark.parametrize("moment", range(1, 6))
def test_a_fork_killed_while_it_begins_ends_in_the_same_bytes(
    tiny: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tiny, "other")
    add_to_pool(tiny)
    start(tiny, "other", grow=True)
    start(tiny, "whole", fork=str(tiny.parent / "other"))
    seen = 0

    def dies(original: Any) -> Any:
        def write(self: LocalStore, key: str, it: bytes) -> Any:
            nonlocal seen
            result = original(self, key, it)
            seen += key in {FORK, "corpora-1.json", "corpora-2.json", "run.json", "register/fork.json"}
            if seen == moment and not key.startswith("events"):
                raise Killed
            return result

        return write

    with monkeypatch.context() as patched:
        for name in ("put", "put_if_absent"):
            patched.setattr(LocalStore, name, dies(getattr(LocalStore, name)))
        with pytest.raises(Killed):
            start(tiny, "own", fork=str(tiny.parent / "other"))
    start(tiny, "own")  # fork.json says of what
    assert records(tiny.parent / "own") == records(tiny.parent / "whole")


def add_to_pool(tiny: Path) -> None:
    shutil.copy(tiny.parent / "data/pool/0.parquet", tiny.parent / "data/pool/9.parquet")


def test_a_fork_of_a_grown_run_has_all_its_generations(tiny: Path) -> None:
    start(tiny, "other")
    add_to_pool(tiny)
    assert start(tiny, "other", grow=True) == [3, 4]
    assert start(tiny, "own", fork=str(tiny.parent / "other")) == [3, 4]
    other, own = LocalStore(tiny.parent / "other"), LocalStore(tiny.parent / "own")
    assert layout.generations(own) == layout.generations(other)
    assert own.get(f"pool-2/{PLACE}/commit.json") == other.get(f"pool-2/{PLACE}/commit.json") is not None
    assert own.get(f"{PLACE}/commit.json") is None, "nothing of the first pool is needed"


def test_a_fork_may_grow_at_once_or_leave_new_shards_out(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(tiny, "other")
    add_to_pool(tiny)
    assert start(tiny, "left", fork=str(tiny.parent / "other")) == [3]
    assert "data.pool: new shards left out: 1; --grow takes them in." in capsys.readouterr().err
    assert start(tiny, "grown", fork=str(tiny.parent / "other"), grow=True) == [3, 4]


def test_a_fork_keeps_the_format_and_the_precision_of_the_other_run(tiny: Path) -> None:
    start(tiny, "other")
    path = tiny.parent / "other/run.json"
    found = unseal(path.read_bytes(), "")
    assert found["config"]["teacher"]["precision"] in {"float32", "bfloat16"}
    odd = {"float32": "bfloat16", "bfloat16": "float32"}[found["config"]["teacher"]["precision"]]
    found["config"]["teacher"]["precision"] = odd
    path.write_bytes(seal({**found, "format": 2}))
    start(tiny, "own", fork=str(tiny.parent / "other"))
    begun = layout.record(LocalStore(tiny.parent / "own"))
    assert begun is not None
    assert begun["format"] == 2
    assert begun["config"]["teacher"]["precision"] == odd


def test_a_fork_of_format_1_names_every_setting(tiny: Path) -> None:
    start(tiny, "other")
    path = tiny.parent / "other/run.json"
    found = unseal(path.read_bytes(), "")
    found["config"]["run"]["patience"] = 1  # a default, which format 2 does not name
    path.write_bytes(seal({**found, "format": 1}))
    start(tiny, "own", "select.threshold=0.6", fork=str(tiny.parent / "other"))
    begun = layout.record(LocalStore(tiny.parent / "own"))
    assert begun is not None
    assert begun["format"] == 1
    assert begun["config"]["run"]["patience"] == 1


def test_held_out_images_stay_and_it_is_said(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = ("data.validation=null", f"data.labelled={tiny.parent / 'data/validation'}")
    start(tiny, "other", *held)
    start(tiny, "own", *held, "run.seed=8", fork=str(tiny.parent / "other"))
    other, own = records(tiny.parent / "other"), records(tiny.parent / "own")
    assert other["corpora-1.json"] == own["corpora-1.json"]
    said = f"the validation images stay those of {tiny.parent / 'other'}, though run.seed: 3 -> 8"
    assert said in undated(capsys.readouterr().err).splitlines()


def test_touched_data_is_compared_with_what_the_other_run_recorded(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start(tiny, "other")
    for path in (tiny.parent / "data/labelled").iterdir():
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))
    start(tiny, "own", fork=str(tiny.parent / "other"))
    assert "the content that the run has seen; it goes on" in capsys.readouterr().err
    assert copied(records(tiny.parent / "own")) == copied(records(tiny.parent / "other"))


def test_another_pool_is_labelled_anew_and_the_rest_is_taken(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(tiny, "other")
    table = pq.read_table(tiny.parent / "data/pool/0.parquet")
    (tiny.parent / "data/new").mkdir()
    for number in range(2):
        pq.write_table(table.slice(10 * number, 10), tiny.parent / f"data/new/{number}.parquet")
    pool = f"data.pool={tiny.parent / 'data/new'}"
    capsys.readouterr()
    assert start(tiny, "own", pool, fork=str(tiny.parent / "other")) == [2]
    said = capsys.readouterr().err
    assert "warning: not the pool of the run that this one is forked from, so it is labelled anew: data.pool: " in said
    assert "(digests, " in said
    assert start(tiny, "own", pool) == [2]


def test_other_labelled_images_are_refused(tiny: Path) -> None:
    start(tiny, "other")
    path = next((tiny.parent / "data/labelled").iterdir())
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table]), path)
    with pytest.raises(InputError, match=r"data\.labelled: .* A fork needs the labelled, validation and test images"):
        start(tiny, "own", fork=str(tiny.parent / "other"))
    assert not (tiny.parent / "own").exists()


def refused(tiny: Path, ray_ns: Call, name: str, other: Path) -> str:
    left = ray_ns("run", tiny, f"run.dir={tiny.parent / name}", "--fork", other)
    assert left.code == 2
    assert left.err.count("\n") == 1
    return left.err


def test_what_cannot_be_forked_is_refused_before_anything_is_written(tiny: Path, ray_ns: Call) -> None:
    folder = tiny.parent
    start(tiny, "other")
    start(tiny, "third")
    start(tiny, "own", fork=str(folder / "other"))
    before: Mapping[str, bytes] = records(folder / "own") | records(folder / "third")
    packed = LocalStore(folder / "packed")
    layout.begin(packed, {"ingest": {}}, {"source": []}, lambda: None, None)
    (folder / "link").symlink_to(folder / "other")
    assert "no run has begun here" in refused(tiny, ray_ns, "new", folder / "nothing")
    assert "that is no run of 'ray-ns run'" in refused(tiny, ray_ns, "new", folder / "packed")
    assert not (folder / "new").exists()
    assert f"was forked from {folder / 'other'}. Leave --fork out" in refused(tiny, ray_ns, "own", folder / "third")
    assert "has begun already, and not as a fork" in refused(tiny, ray_ns, "third", folder / "other")
    assert "that is the run.dir itself, or was forked from it" in refused(tiny, ray_ns, "other", folder / "other")
    assert "that is the run.dir itself, or was forked from it" in refused(tiny, ray_ns, "link", folder / "other")
    assert "that is the run.dir itself, or was forked from it" in refused(tiny, ray_ns, "other", folder / "own")
    assert records(folder / "own") | records(folder / "third") == before


def test_a_fork_of_a_fork_reads_through_both(tiny: Path) -> None:
    start(tiny, "first")
    start(tiny, "second", fork=str(tiny.parent / "first"))
    start(tiny, "third", fork=str(tiny.parent / "second"))
    with drive(str(tiny), words(tiny.parent, "third"), "plain") as run:
        found = known_images(run)
        assert found is not None
        assert all(it.read(run.store) for it in found.objects.values())
    assert not list((tiny.parent / "third").rglob("data"))


def test_a_fork_whose_other_run_is_gone_says_so(tiny: Path, ray_ns: Call) -> None:
    start(tiny, "other")
    start(tiny, "own", fork=str(tiny.parent / "other"))
    assert ray_ns("verify", tiny.parent / "own").code == 0
    shutil.rmtree(tiny.parent / "other")
    left = ray_ns("verify", tiny.parent / "own", "--json")
    assert left.code == 4
    faults = json.loads(left.out)["faults"]
    assert faults
    assert all(
        f"This run was forked from {tiny.parent / 'other'}, which does not hold it" in it for it in faults.values()
    )
    assert ray_ns("status", tiny.parent / "own").code == 0
