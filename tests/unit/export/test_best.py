"""``RUN/best/``: what it holds, how it is repaired, and that no kill leaves two networks mixed in it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from support.dying import FaultyStore, Killed
from support.format_1 import unpack

from ray_ns.artifacts.report import Report, network_in, report_of
from ray_ns.export import best
from ray_ns.models.files import CONFIG, WEIGHTS
from ray_ns.seals import sha256
from ray_ns.store import layout
from ray_ns.store.commit import find_commit
from ray_ns.store.objects import LocalStore
from ray_ns.store.verify import verify

FILES = {WEIGHTS, CONFIG, best.LABELS, best.CARD}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("format_1"))


@pytest.fixture
def store(made: Path, tmp_path: Path) -> LocalStore:
    shutil.copytree(made / "finished", tmp_path / "run")
    return LocalStore(tmp_path / "run")


@pytest.fixture
def report(store: LocalStore) -> Report:
    found = report_of(store)
    assert found is not None
    return found


def free() -> None:
    """A fence nobody has run into."""


def faults(store: LocalStore) -> dict[str, str]:
    return {key: fault for key, fault in verify(store) if fault is not None}


def held(store: LocalStore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (store.root / "best").glob("*")}


def test_the_two_files_are_those_of_the_networks_commit(store: LocalStore, report: Report) -> None:
    assert not best.is_whole(store, report)
    best.put(store, report, free)
    assert best.is_whole(store, report)
    found = held(store)
    assert found.keys() == FILES
    files = network_in(store, report).files
    assert {name: found[name] for name in files} == {name: it.read(store) for name, it in files.items()}
    assert found[best.LABELS].decode().split("\n") == [*map(str, range(10)), ""]


def test_the_card_is_made_of_the_runs_records(store: LocalStore, report: Report) -> None:
    best.put(store, report, free)
    text = held(store)[best.CARD].decode()
    value = report.value(store)
    assert ModelCard(text, ignore_metadata_errors=False).data.eval_results[0].metric_value == pytest.approx(
        next(row for row in value["rounds"] if row["best"])["test_top1"], abs=1e-6
    )
    assert text.count("\n| ") - text.count("\n| corpus") - 4 >= len(value["rounds"])
    corpora = {name: sum(int(count) for count in [it]) for name, it in find_commit(store, "digests").summary.items()}
    for name, count in corpora.items():
        assert f"\n| {name} | {count:,} | `" in text
    assert "\n| pool | 120 | `238c27459505e9f3` | `" in text, (
        "the digest by which the plan of the labels knows the pool"
    )
    assert sha256(held(store)[WEIGHTS]) in text.replace("\\_", "_")
    assert str(store.root) not in text
    assert yaml.safe_load(text.split("---\n")[1])["library_name"] == "timm"


def test_names_are_a_line_each_whatever_is_in_them(store: LocalStore, report: Report) -> None:
    begun = json.loads((store.root / layout.RUN).read_text())
    names = ["façade", "two\nlines", "a\u202eb", *map(str, range(7))]
    from ray_ns.seals import seal

    begun.pop("seal")
    (store.root / layout.RUN).write_bytes(seal({**begun, "classes": {"count": 10, "names": names}}))
    best.put(store, report, free)
    assert held(store)[best.LABELS].decode().split("\n")[:3] == ["façade", "two\\nlines", "a\\u202eb"]


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_is_missing_or_differs_is_not_whole(store: LocalStore, report: Report, name: str) -> None:
    best.put(store, report, free)
    before = held(store)
    (store.root / "best" / name).write_bytes(before[name][:-60])
    assert not best.is_whole(store, report)
    (store.root / "best" / name).unlink()
    assert not best.is_whole(store, report)
    best.put(store, report, free)
    assert held(store) == before


def test_a_card_that_was_edited_stays(store: LocalStore, report: Report) -> None:
    best.put(store, report, free)
    path = store.root / "best" / best.CARD
    path.write_text(path.read_text().replace("library_name: timm", "license: mit\nlibrary_name: timm"))
    assert best.is_whole(store, report)


def killed_everywhere(store: LocalStore, report: Report) -> Iterator[LocalStore]:
    """The run after ``best/`` of an earlier report is being replaced and the process dies, at every moment."""
    best.put(store, report, free)
    older = store.root.parent / "older"
    shutil.copytree(store.root, older)
    card = (older / "best" / best.CARD).read_text().replace(report.digest, "0" * 64)
    (older / "best" / best.CARD).write_text(card)
    for name in (WEIGHTS, CONFIG, best.LABELS):
        (older / "best" / name).write_bytes(f"older {name}".encode())
    for number in range(100):
        run = store.root.parent / f"killed-{number}"
        shutil.copytree(older, run)
        try:
            best.put(FaultyStore(run, die_at=number), report, free)
        except Killed:
            yield LocalStore(run)
        else:
            return


def test_a_kill_at_any_moment_leaves_no_mix_and_is_repaired(store: LocalStore, report: Report) -> None:
    states = 0
    for run in killed_everywhere(store, report):
        states += 1
        found = held(run)
        kinds = {content.startswith(b"older") for name, content in found.items() if name in (WEIGHTS, CONFIG)}
        assert CONFIG not in found or len(kinds) == 1, "timm would load the weights of one with the config of the other"
        if best.CARD in found and report.digest.encode() in found[best.CARD]:
            assert best.is_whole(run, report)
        if CONFIG not in found or kinds == {False}:
            assert faults(run) == {}
        best.put(run, report, free)
        assert held(run) == held(store)
        assert faults(run) == {}
    assert states == 6


def test_taken_down_it_tells_no_network(store: LocalStore, report: Report) -> None:
    best.put(store, report, free)
    best.take_down(store, free)
    assert held(store).keys() == {WEIGHTS, best.LABELS}
    assert faults(store) == {}


def test_nothing_is_taken_down_and_no_lease_asked_for_where_nothing_is(store: LocalStore) -> None:
    def refuse() -> None:
        raise AssertionError("asked for the lease")

    best.take_down(store, refuse)


def test_verify_finds_a_best_network_that_is_not_the_reports(store: LocalStore, report: Report) -> None:
    assert faults(store) == {}, "a missing one is no fault"
    best.put(store, report, free)
    assert faults(store) == {}
    for name in (WEIGHTS, CONFIG):
        content = bytearray((store.root / "best" / name).read_bytes())
        content[len(content) // 2] ^= 1
        (store.root / "best" / name).write_bytes(content)
    found = faults(store)
    assert found.keys() == {"best/model.safetensors", "best/config.json"}
    assert all("which the report names. Run again to write it anew." in fault for fault in found.values())
    (store.root / "best" / WEIGHTS).unlink()
    assert "best/model.safetensors" in faults(store)
    (store.root / "best" / WEIGHTS).mkdir()
    assert "is a folder" in faults(store)["best/model.safetensors"]


def test_the_card_and_the_names_are_no_records(store: LocalStore, report: Report) -> None:
    best.put(store, report, free)
    (store.root / "best" / best.CARD).write_text("mine")
    (store.root / "best" / best.LABELS).unlink()
    assert faults(store) == {}
