"""Objects on a local disk: whole or not at all, one winner, durable, nothing left by a writer that fails."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.dying import Killed

from ray_ns.errors import InputError, ResumableError
from ray_ns.store.objects import LocalStore, open_store

UNSAFE = [
    *("", ".", "..", "/", "/etc/passwd", "../x", "a/../b", "a/..", "./a", "a/./b", "a//b", "a/", "~/x"),
    *("a\\b", "..\\x", "C:\\x", "C:/x", "a\0b", "\0", "a b", "a\n", "a\r", "ä", "a*", "%2e%2e/x"),
]

Write = Callable[[LocalStore, str, bytes], object]
WRITES = [pytest.param(LocalStore.put, id="put"), pytest.param(LocalStore.put_if_absent, id="put_if_absent")]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "run")


def left_over(store: LocalStore) -> list[str]:
    """Every file on disk that the store does not list."""
    files = {path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file()}
    return sorted(files - set(store.list("")))


def test_what_was_put_is_read_back(store: LocalStore) -> None:
    data = bytes(range(256))
    store.put("a/b/c.bin", data)
    assert store.get("a/b/c.bin") == data
    store.put("a/b/c.bin", b"")
    assert store.get("a/b/c.bin") == b""


@pytest.mark.parametrize("key", ["nothing", "a/b/nothing", "file/below"])
def test_what_is_absent_reads_as_none(store: LocalStore, key: str) -> None:
    store.put("file", b"x")
    assert store.get(key) is None


def test_put_if_absent_keeps_the_first_and_counts_equal_bytes_as_success(store: LocalStore) -> None:
    assert store.put_if_absent("k", b"first") is True
    assert store.put_if_absent("k", b"second") is False
    assert store.put_if_absent("k", b"first") is True
    assert store.get("k") == b"first"
    assert left_over(store) == []


def test_of_racing_threads_one_wins_and_is_stored(store: LocalStore) -> None:
    threads, keys = 6, 25
    start = threading.Barrier(threads)
    won: list[list[bool]] = [[] for _ in range(threads)]

    def work(number: int) -> None:
        for key in range(keys):
            start.wait()
            won[number].append(store.put_if_absent(f"k/{key}", b"%d" % number))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for key in range(keys):
        winners = [number for number in range(threads) if won[number][key]]
        assert len(winners) == 1
        assert store.get(f"k/{key}") == b"%d" % winners[0]
    assert left_over(store) == []


RACER = """
import sys
from ray_ns.store.objects import LocalStore
store, me, keys = LocalStore(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
print("".join("1" if store.put_if_absent(f"k/{key}", me) else "0" for key in range(keys)))
"""


def test_of_racing_processes_one_wins_and_is_stored(store: LocalStore) -> None:
    processes, keys = 3, 100
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(store.root), str(number), str(keys)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [racer.communicate()[0].strip() for racer in racers]
    for key in range(keys):
        winners = [number for number in range(processes) if won[number][key] == "1"]
        assert len(winners) == 1
        assert store.get(f"k/{key}") == b"%d" % winners[0]


def test_a_reader_never_sees_a_half_written_object(store: LocalStore) -> None:
    sizes = [1, 300_000]
    store.put("k", b"0" * sizes[0])
    done = threading.Event()

    def replace() -> None:
        for number in range(40):
            store.put("k", b"%d" % (number % 10) * sizes[number % 2])
        done.set()

    writer = threading.Thread(target=replace)
    writer.start()
    while not done.is_set():
        data = store.get("k")
        assert data is not None
        assert len(data) in sizes
        assert len(set(data)) == 1
    writer.join()


@pytest.mark.parametrize("call", ["link", "replace", "fsync"])
@pytest.mark.parametrize("before", [None, b"before"])
def test_a_writer_that_dies_leaves_the_key_as_it_was(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, call: str, before: bytes | None
) -> None:
    if before is not None:
        store.put("a/k", before)

    def die(*_: object) -> None:
        raise Killed

    write: Write = LocalStore.put_if_absent if call == "link" else LocalStore.put
    with monkeypatch.context() as patch:
        patch.setattr(os, call, die)
        with pytest.raises(Killed):
            write(store, "a/k", b"new")
    assert store.get("a/k") == before
    assert list(store.list("")) == ([] if before is None else ["a/k"])
    assert left_over(store) == []


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_takes_no_write_is_resumable_and_names_the_path(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, write: Write, code: int
) -> None:
    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(ResumableError) as caught:
            write(store, "a/k", b"new")
    assert str(store.root / "a/k") in str(caught.value)
    assert os.strerror(code) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    assert store.get("a/k") is None
    assert left_over(store) == []
    write(store, "a/k", b"new")
    assert store.get("a/k") == b"new"


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(("file", "key"), [("run", "k"), ("run/a", "a/k"), ("run/a", "a/b/k")])
def test_a_file_in_the_place_of_a_folder_is_one_clear_error(tmp_path: Path, write: Write, file: str, key: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("in the way")
    with pytest.raises(ResumableError, match=str(tmp_path / "run" / key)):
        write(LocalStore(tmp_path / "run"), key, b"x")


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_disk_that_cannot_be_read_is_resumable_and_names_the_path(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    store.put("a/k", b"x")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ResumableError, match="a/k"):
        store.get("a/k")


@pytest.mark.parametrize("write", WRITES)
def test_bytes_are_durable_before_they_get_their_name(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    happened: list[str] = []
    fsync, link, replace = os.fsync, os.link, os.replace

    def spy(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: object) -> None:
            real(*args)
            happened.append(name)

        return call

    (store.root / "a").mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", spy("fsync", fsync))
    monkeypatch.setattr(os, "link", spy("name", link))
    monkeypatch.setattr(os, "replace", spy("name", replace))
    write(store, "a/k", b"x")
    at = happened.index("name")
    assert "fsync" in happened[:at], "the bytes"
    assert "fsync" in happened[at + 1 :], "the name"


def synced_folders(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> set[str]:
    synced: set[str] = set()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        work()
    return synced


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks /proc which file was synced")
@pytest.mark.parametrize("write", WRITES)
def test_folders_that_a_write_had_to_make_are_durable_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    store = LocalStore(tmp_path / "new" / "run")
    synced = synced_folders(monkeypatch, lambda: write(store, "a/b/k", b"x"))
    holders = {str(tmp_path / folder) for folder in ("", "new", "new/run", "new/run/a", "new/run/a/b")}
    assert holders - synced == set(), "a folder's own entry in its parent may be lost with the power"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks /proc which file was synced")
def test_success_on_equal_bytes_is_durable_whoever_wrote_them(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a/k", b"x")  # stands for a writer that died between link and fsync of the folder
    synced = synced_folders(monkeypatch, lambda: store.put_if_absent("a/k", b"x"))
    assert str(store.root / "a") in synced


@pytest.mark.parametrize("key", UNSAFE)
def test_unsafe_keys_are_refused_by_every_method(store: LocalStore, key: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("outside")
    for call in (
        lambda: store.put(key, b"1"),
        lambda: store.put_if_absent(key, b"1"),
        lambda: store.get(key),
        lambda: store.delete(key),
    ):
        with pytest.raises(ValueError, match="unsafe object key"):
            call()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "outside"


def test_a_listing_is_sorted_and_hides_temporary_files(store: LocalStore) -> None:
    keys = ["b/2", "a/9", "a/10", "a-b", "c", "b/1/x", "a/x.tmp/1"]
    for key in keys:
        store.put(key, b"")
    (store.root / ".tmp" / "0123").write_bytes(b"half of somethi")
    assert list(store.list("")) == sorted(keys)


@pytest.mark.parametrize(
    ("prefix", "wanted"),
    [
        ("", ["r/1/a", "r/1/b", "r/10/a"]),
        ("r/1", ["r/1/a", "r/1/b", "r/10/a"]),
        ("r/1/", ["r/1/a", "r/1/b"]),
        ("r/10/", ["r/10/a"]),
        ("r/2/", []),
        ("nothing", []),
    ],
)
def test_a_listing_is_by_prefix(store: LocalStore, prefix: str, wanted: list[str]) -> None:
    for key in ("r/1/b", "r/1/a", "r/10/a"):
        store.put(key, b"")
    assert list(store.list(prefix)) == wanted


def test_a_run_that_does_not_exist_lists_nothing_and_is_not_made_by_reading(store: LocalStore) -> None:
    assert list(store.list("")) == []
    assert store.get("run.json") is None
    assert not store.root.exists()


def test_delete_removes_and_minds_no_absence(store: LocalStore) -> None:
    store.put("a/k", b"x")
    store.delete("a/k")
    assert store.get("a/k") is None
    store.delete("a/k")
    store.delete("never/was")


@pytest.mark.parametrize("url", ["gs://bucket/run", "hdfs://host/run", "http://host/run"])
def test_remote_runs_are_refused_as_the_users_input(url: str) -> None:
    with pytest.raises(InputError, match=url) as caught:
        open_store(url)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_path_opens_a_store_with_an_absolute_url(tmp_path: Path, form: str) -> None:
    assert open_store(form.format(tmp_path / "run")).url == str(tmp_path / "run")


def test_a_relative_path_is_meant_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("runs/demo")
    monkeypatch.chdir("/")
    store.put("k", b"x")
    assert (tmp_path / "runs/demo/k").read_bytes() == b"x"
