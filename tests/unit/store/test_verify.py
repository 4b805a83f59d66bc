"""What is missing, unreadable, no file or another is found, in a finished run and in one that is under way."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_ns.errors import InputError
from ray_ns.seals import seal
from ray_ns.store import checkpoint, layout
from ray_ns.store.commit import Commit, Output, ensure
from ray_ns.store.lease import Lease
from ray_ns.store.objects import LocalStore
from ray_ns.store.verify import verify

PARTS = 2


def free() -> None:
    """A fence nobody has run into."""


def stage(store: LocalStore, prefix: str, inputs: dict[str, Any], end: bool = True) -> Commit:
    """A stage of two parts; ``end``: False leaves it without its commit, and with one part alone."""

    class Stopped(Exception):
        pass

    def work(made: Output) -> tuple[dict[str, Any], int]:
        for part in range(PARTS if end else 1):
            made.publish(part, {"x.bin": f"{prefix} {part}".encode()}, {})
        if not end:
            raise Stopped
        return {}, PARTS

    try:
        return ensure(store, prefix, inputs, work, free)
    except Stopped:
        return Commit(prefix, "", "", (), {})


def run(root: Path, until: str) -> LocalStore:
    """A run up to a stage, which is under way; of the report it is the end."""
    store = LocalStore(root)
    lease = Lease(store)
    layout.begin(store, {"run": {}}, {"pool": []}, lease.check, layout.Classes(10))
    made: dict[str, Commit] = {}
    order = {
        "rounds/0/train": lambda: {"selection": None, "begin": None},
        "rounds/0/evaluate": lambda: {"network": made["rounds/0/train"].digest},
        "rounds/1/label": lambda: {"teacher": made["rounds/0/train"].digest, "only": None},
        "rounds/1/label/counts": lambda: {"labels": made["rounds/1/label"].digest},
        "rounds/1/select": lambda: {"labels": made["rounds/1/label"].digest, "before": None},
        "rounds/1/train": lambda: {"selection": made["rounds/1/select"].digest},
        "rounds/1/evaluate": lambda: {"network": made["rounds/1/train"].digest},
        "report": lambda: {"stages": [made[f"rounds/{at}/{name}"].digest for at in (0, 1) for name in ("train",)]},
    }
    for prefix, inputs in order.items():
        made[prefix] = stage(store, prefix, inputs(), end=prefix != until or until == "report")
        store.put(f"{prefix}/timing.json", b'{"seconds":1}')
        if prefix == until:
            break
    checkpoint.save(store, checkpoint.place("rounds/1/train", "0" * 64), lease.held(), checkpoint.Checkpoint(1, {}, {}))
    lease.release()
    return store


UNTIL = ("rounds/1/label", "rounds/1/train", "report")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {until: run(tmp_path_factory.mktemp("run"), until).root for until in UNTIL}


@pytest.fixture
def copy(made: dict[str, Path], tmp_path: Path) -> Callable[[str], LocalStore]:
    def copied(until: str) -> LocalStore:
        shutil.copytree(made[until], tmp_path / "run")
        return LocalStore(tmp_path / "run")

    return copied


def faults(store: LocalStore) -> dict[str, str]:
    return {key: fault for key, fault in verify(store) if fault is not None}


def is_hint(store: LocalStore, key: str) -> bool:
    """What ``verify`` says that nobody misses."""
    stage_of = layout.stage_of(key)
    done = "/done/" in key
    unnamed = stage_of is not None and "/data/" in key and store.get(f"{stage_of}/commit.json") is None
    return done or unnamed or key.startswith(("driver/", "register/")) or "/checkpoints/" in key or "timing.json" in key


@pytest.mark.parametrize("until", UNTIL)
def test_all_of_an_untouched_run_is_well(copy: Callable[[str], LocalStore], until: str) -> None:
    store = copy(until)
    found = list(verify(store))
    assert {fault for _, fault in found} == {None}
    assert len(dict(found)) == len(found), "each once"
    named = {key for key, _ in found}
    left = {key for key in store.list("") if "/data/" not in key and "done/" not in key} - named
    assert all(is_hint(store, key) for key in left)


def copies(made: Path, folder: Path) -> Iterator[tuple[str, LocalStore]]:
    """Each key of a run with a copy of the run that may be harmed."""
    for number, key in enumerate(LocalStore(made).list("")):
        root = folder / str(number)
        shutil.copytree(made, root, copy_function=os.link)
        yield key, LocalStore(root)


@pytest.mark.parametrize("until", UNTIL)
def test_whatever_is_removed_is_named_or_a_hint(made: dict[str, Path], until: str, tmp_path: Path) -> None:
    for key, store in copies(made[until], tmp_path):
        hint = is_hint(store, key)
        store.delete(key)
        found = faults(store)
        named = "/done/" in key or "/data/" in key  # of a stage under way, a record names its data
        assert list(found) == [key] or (hint and (not found or named)), f"{key}: {found}"
        for text in found.values():
            assert key in text, key


@pytest.mark.parametrize(
    "folder", ["rounds", "rounds/0", "rounds/0/train", "rounds/1/select", "rounds/1/label", "report"]
)
def test_a_folder_that_is_removed_is_missed_with_every_commit_that_lay_in_it(
    copy: Callable[[str], LocalStore], folder: str
) -> None:
    store = copy("report")
    lost = [key for key in store.list(f"{folder}/") if key.endswith("/commit.json")]
    shutil.rmtree(store.root / folder)
    found = faults(store)
    assert lost
    assert set(lost) <= set(found)
    assert all("missing" in found[key] for key in lost)


def test_a_commit_without_its_register_is_missed_by_what_was_made_of_it(copy: Callable[[str], LocalStore]) -> None:
    store = copy("report")
    shutil.rmtree(store.root / "register")
    assert faults(store) == {}
    shutil.rmtree(store.root / "rounds/1/select")
    assert list(faults(store)) == ["rounds/1/train/plan.json"]
    shutil.rmtree(store.root / "rounds")
    assert list(faults(store)) == ["report/plan.json"]


def test_later_corpora_are_missed(copy: Callable[[str], LocalStore]) -> None:
    store = copy("report")
    layout.grow(store, {"pool": [1]}, 2, free)
    assert faults(store) == {}
    store.delete("corpora-2.json")
    assert list(faults(store)) == ["corpora-2.json"]


@pytest.mark.parametrize(
    "key", ["run.json", "corpora-1.json", "rounds/0/train/plan.json", "rounds/0/train/commit.json"]
)
def test_a_record_of_another_run_is_found(copy: Callable[[str], LocalStore], key: str) -> None:
    store = copy("report")
    value = {"stage": "rounds/0/train", "inputs": {"a": 1}, "parts": [], "summary": {}} if "rounds" in key else {"x": 1}
    store.put(key, seal(value))
    if "rounds" in key:
        assert key in faults(store)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_full_folder(path: Path) -> None:
    a_folder(path)
    (path / "x").touch()


def a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize("harm", [a_folder, a_full_folder, a_loop, a_dangling_link])
@pytest.mark.parametrize("until", UNTIL)
def test_what_is_no_file_in_a_files_place_is_named(
    made: dict[str, Path], until: str, harm: Callable[[Path], None], tmp_path: Path
) -> None:
    for key, store in copies(made[until], tmp_path):
        hint = is_hint(store, key)
        harm(store.path(key))
        found = faults(store)
        assert key in found or hint, f"{key}: {found}"
        if "/done/" in key and until in key and harm is not a_dangling_link and until != "report":
            assert list(found) == [key], "a record of a stage under way"


@pytest.mark.parametrize("harm", [errno.EACCES, errno.EIO])
@pytest.mark.parametrize(
    "key", ["run.json", "corpora-1.json", "rounds/1/label/commit.json", "rounds/1/label/plan.json"]
)
def test_what_cannot_be_read_is_named(
    copy: Callable[[str], LocalStore], monkeypatch: pytest.MonkeyPatch, key: str, harm: int
) -> None:
    store = copy("report")
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == store.path(key):
            raise OSError(harm, os.strerror(harm))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    found = faults(store)
    assert key in found
    assert os.strerror(harm) in found[key]


AS_NOBODY = """
import os, sys
from ray_ns.store import checkpoint, objects, verify
root, has_checkpoints = sys.argv[1:]
os.setuid(65534)
store = objects.LocalStore(root)
print([key for key, fault in verify.verify(store) if fault])
try:
    if has_checkpoints == "True":
        print(checkpoint.latest(store, checkpoint.place("rounds/1/train", "0" * 64), print))
except objects.UnreadableError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="gives up being root")
@pytest.mark.parametrize(
    "folder", ["rounds", "rounds/1/train", "rounds/1/train/checkpoints", "rounds/0/train/data", "register", "."]
)
def test_a_folder_that_may_not_be_read_is_named_and_not_taken_for_an_empty_one(
    copy: Callable[[str], LocalStore], folder: str
) -> None:
    store = copy("report")
    for parent in (store.root, *store.root.parents):
        if Path(tempfile.gettempdir()) in parent.parents:
            parent.chmod(0o755)
    (store.root / folder).chmod(0)
    code = f"import sys; sys.path[:0] = {sys.path!r}\n{AS_NOBODY}"
    hides_checkpoints = "checkpoints" in folder or folder in {"rounds", "rounds/1/train", "."}
    words = [sys.executable, "-c", code, store.url, str(hides_checkpoints)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    first, *others = done.stdout.splitlines()
    assert (folder in first) if folder != "." else ("run.json" in first)
    if hides_checkpoints:
        assert others[-1].startswith("refused:")


def test_an_unreadable_folder_is_no_empty_one_for_a_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray_ns.store.objects import UnreadableError

    store = LocalStore(tmp_path)
    store.put("a/b/c", b"")
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("/b"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UnreadableError, match="a/b"):
        list(store.list("a/"))


FOREIGN = [
    "rounds/1/select backup/plan.json",
    "rounds/1/select backup/commit.json",
    "rounds/1/select (conflict)/done/000000.json",
    "rounds/1/label/done/000000 (1).json",
    "rounds/1/label/done/000000 copy.json",
    "rounds/1/label/done/000000.sync-conflict-20260101-101010-ABCDEFG.json",
    "rounds/1/label/done/.000000.json.swp",
    "rounds/1/label/done/000000.json~",
    "rounds/1/label/plan (1).json",
    "rounds/1/label/commit copy.json",
    "rounds copy/1/label/plan.json",
    "rounds/1/lábel/plan.json",
    "rounds/1/select-copy/plan.json",
    "corpora-1 (1).json",
    "run (1).json",
    "register/rounds/1/label copy.json",
    "driver/000001 copy.json",
    "driver/000009.sync-conflict-1.json",
    "rounds/1/train/checkpoints/0000000000000000/000000009 (1).json",
    "Icon\r",
    "desktop.ini",
]


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("until", UNTIL)
def test_names_of_sync_clients_are_passed_over(copy: Callable[[str], LocalStore], name: str, until: str) -> None:
    store = copy(until)
    before, stages = sorted(verify(store)), sorted(layout.stages(store))  # a folder lists its files in any order
    done = Output(store, "rounds/1/label", free).done()
    path = store.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"garbage")
    assert sorted(verify(store)) == before
    assert sorted(layout.stages(store)) == stages
    assert Output(store, "rounds/1/label", free).done() == done
    lease = Lease(store)
    assert lease.held().epoch == 2
    lease.release()
    place = checkpoint.place("rounds/1/train", "0" * 64)
    found = checkpoint.latest(store, place, pytest.fail)
    assert found is not None
    assert found.step == 1
    checkpoint.clear(store, "rounds/1/train")
    assert path.read_bytes() == b"garbage"


def test_where_no_run_has_begun_there_is_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run has begun"):
        list(verify(LocalStore(tmp_path)))


def test_a_run_that_was_killed_before_its_first_stage_is_well(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    layout.begin(store, {"run": {}}, {"pool": []}, free, layout.Classes(10))
    assert faults(store) == {}
