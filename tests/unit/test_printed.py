"""What leaves for people: whatever others have called their files, classes and columns, it acts on no terminal."""

import ast
import io
import json
import logging
import os
import sys
import tarfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.in_process import Call

import ray_ns
from ray_ns import exits, printed
from ray_ns.artifacts.network import Network
from ray_ns.artifacts.scores import Scores
from ray_ns.artifacts.selection import Selection
from ray_ns.config import Config
from ray_ns.corpora.corpus import Corpus, Shard
from ray_ns.corpora.survey import TILE, Survey, Tile
from ray_ns.errors import IntegrityError, RayNsError, ResumableError
from ray_ns.methods.outcome import Outcome, Round
from ray_ns.observe import Reporter
from ray_ns.report.terminal import columns, ingest, selection, survey
from ray_ns.report.terminal import run as table
from ray_ns.store.commit import Commit, Part, StoredObject
from ray_ns.store.objects import LocalStore

FOLDER = Path(ray_ns.__file__).parent
NAME = "a\x1b]0;title\x07\x1b[2J\r\x7f\x9b31m\u202egpj.exe\u2066\u200b\u2028[bold]:smile:"  # fits a file name
EVIL = NAME + "[/bold]\nray-ns: all is well\t\x00"
ESCAPED = r"\x1b]0;title\x07\x1b[2J\r\x7f\x9b31m\u202egpj.exe\u2066\u200b\u2028[bold]:smile:"


def clean(text: str) -> str:
    """``text`` as printable lines, in which nothing forges a line of ours."""
    bad = [repr(line) for line in text.split("\n") if not line.isprintable()]
    assert not bad
    assert "\nray-ns: all is well" not in text
    return text


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: clean("".join(capsys.readouterr()))


def test_every_character_that_is_not_printable_is_escaped() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        assert printed.plain(character).isprintable()
        assert (printed.plain(character) == character) == character.isprintable()
    assert printed.plain(EVIL) == f"a{ESCAPED}[/bold]\\nray-ns: all is well\\t\\x00"
    assert printed.plain("größe 写真 é") == "größe 写真 é"
    assert printed.plain(os.fsdecode(b"\xff.png")) == r"\udcff.png"


@pytest.mark.parametrize("say", [printed.say, printed.tell, lambda line: printed.tell_failure(line, 2, line)])
def test_lines_are_plain(say: Callable[[str], None], said: Callable[[], str]) -> None:
    say(EVIL)
    assert ESCAPED in said()


@pytest.mark.parametrize("kind", ["note", "warn", "begin", "end", "progress"])
@pytest.mark.parametrize("terminal", [False, True])
def test_a_reporter_is_plain(kind: str, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr("ray_ns.observe.LOG_SECONDS", -1)
    monkeypatch.setenv("TERM", "xterm")
    reporter = Reporter("auto")
    if kind in {"note", "warn"}:
        getattr(reporter, kind)(EVIL)
    else:
        reporter.begin(EVIL if kind == "begin" else "train", 10, EVIL)
        reporter.progress(1, EVIL)
        printed.tell(EVIL)
        reporter.end(EVIL)
    text = screen.getvalue()
    if terminal:  # Rich moves the cursor; nothing else may
        for own in ("\x1b[2K", "\x1b[1A", "\x1b[?25l", "\x1b[?25h", "\r"):
            text = text.replace(own, "")
        text = "".join(part.partition("m")[2] if at else part for at, part in enumerate(text.split("\x1b[")))
    clean(text)
    assert "[bold]:smile:" in "".join(text.split("\n"))


def test_the_reports_are_plain(said: Callable[[], str]) -> None:
    columns.show(["class", EVIL], [[EVIL, EVIL], ["b", "c"]])
    figures = {name: [3, 1] for name in ("candidates", "over_threshold", "kept", "with_copies", "threshold", "cut")}
    summary = {
        "rule": EVIL,
        "images": 4,
        "copies": 4,
        "dropped": {"below_threshold": 0, "beyond_quota": 0},
        "quarantine": {EVIL: 2},
        "per_class": {**figures, "confidence": {"q50": [0.5, 0.5]}},
    }
    selection.show(Selection(Commit(EVIL, "", "", (), summary)), [EVIL, "b"])
    packed = {"read": 3, "images": 2, "bytes": 5, "duplicates": 0, "leaks": 0, "quarantine": {EVIL: 1}}
    ingest.show(EVIL, [Commit(EVIL, "", "", (), packed)])
    corpus = Corpus(EVIL, "image", "label", (Shard(0, EVIL, 1, 0),))
    found = Survey(
        images=2,
        formats=Counter({EVIL: 1}),
        reasons=Counter({EVIL: 1}),
        labels=Counter({EVIL: 2}),
        bytes=Counter({100: 2}),
        bad={EVIL: [EVIL]},
        tiles={0: Tile(np.zeros((TILE, TILE, 3), np.uint8), EVIL)},
    )
    survey.show(corpus, found)
    survey.sheet(found)
    assert said().count(ESCAPED) > 10


@pytest.mark.parametrize("error", [RayNsError, ResumableError, IntegrityError, RuntimeError, OSError, KeyError])
@pytest.mark.parametrize("for_machines", [False, True])
def test_errors_and_their_tracebacks_are_plain(
    error: type[Exception], for_machines: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error(EVIL) from ValueError(EVIL)

    assert exits.guarded(fail, ["--json"] if for_machines else []) in {3, 4}
    out, err = capsys.readouterr()
    assert out == ""
    clean(err)
    if for_machines:
        (event,) = map(json.loads, err.splitlines())
        assert EVIL in event["text"] or EVIL in event["traceback"] or repr(EVIL) in event["traceback"]


@pytest.mark.parametrize("for_machines", [False, True])
def test_what_libraries_print_leaves_by_the_same_door(for_machines: bool, capsys: pytest.CaptureFixture[str]) -> None:
    def chatter() -> None:
        warnings.warn(EVIL, stacklevel=1)
        print(EVIL)
        print(EVIL, file=sys.stderr)
        sys.stderr.write("half a line")
        logging.getLogger("a.library").warning("logged %s", EVIL)

    before = sys.stdout, sys.stderr, warnings.showwarning
    assert exits.guarded(chatter, ["run", "--json"] if for_machines else ["run"]) == 0
    assert (sys.stdout, sys.stderr, warnings.showwarning) == before
    out, err = capsys.readouterr()
    clean((out + err).replace("\nray-ns: all is well", "\n"))  # here a library does write two lines
    if for_machines:
        assert out == ""
        events = [json.loads(line) for line in err.splitlines()]
        assert {"warning", "log"} == {event["event"] for event in events}
        assert any("half a line" in event["text"] for event in events)


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_inspect_of_hostile_names(
    ray_ns: Call, tmp_path: Path, pictures: Callable[..., list[bytes]], flags: list[str]
) -> None:
    images = pictures(6)
    folders = tmp_path / "folders" / NAME
    folders.mkdir(parents=True)
    (folders / f"{NAME}.png").write_bytes(images[0])
    (folders / f"{NAME} bad.png").write_bytes(images[1][:40])
    tars = tmp_path / "tars"
    tars.mkdir()
    with tarfile.open(tars / f"{NAME}.tar", "w") as file:
        for at, suffix in enumerate(("1.png", "1.cls", "2.png", "2.cls")):
            data = [images[2], b"0", images[3][:40], b"1"][at]
            member = tarfile.TarInfo(f"{NAME}{suffix}")
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    parquet = tmp_path / "parquet"
    parquet.mkdir()
    pq.write_table(pa.table({NAME: [images[4], b""], f"{NAME} 2": [0, 1]}), parquet / f"{NAME}.parquet")
    for words in (
        [tmp_path / "folders", "--labelled"],
        [tars, "--labelled"],
        [parquet, "--image-column", NAME, "--labelled", "--label-column", f"{NAME} 2"],
        [parquet, "--image-column", NAME, "--label-column", f"{NAME} 3", "--labelled"],
        [parquet],
        [tmp_path / NAME],
        [tmp_path / "folders", "--sheet", tmp_path / NAME / NAME],
        [tmp_path / "folders", f"--{NAME}"],
    ):
        code, out, err = ray_ns("inspect", *words, *flags)
        assert code in {0, 2}, err
        clean(out + err)
        for line in (out + err).splitlines() if flags else ():
            json.loads(line)


@pytest.mark.parametrize("verb", ["run", "check", "select", "ingest", "status", "verify", "inspect", NAME])
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_every_verb_refuses_a_hostile_name_in_plain_words(
    ray_ns: Call, tmp_path: Path, verb: str, flags: list[str]
) -> None:
    config = tmp_path / f"{NAME}.yaml"
    config.write_text(json.dumps({"run": {"dir": EVIL, EVIL: EVIL}, EVIL: EVIL, "teacher": {"steps": EVIL}}))
    for words in ([config], [tmp_path / NAME], [config, f"{NAME}={NAME}"], [config, NAME], [NAME, NAME]):
        code, out, err = ray_ns(verb, *words, *flags)
        assert code == 2
        assert out == ""
        clean(err)
        for line in err.splitlines() if flags else ():
            json.loads(line)


def test_a_table_of_rounds_is_plain(said: Callable[[], str], config: Config) -> None:
    recipe = config.teacher.model_copy(update={"model": config.teacher.model.model_copy(update={"name": EVIL})})
    objects = {name: StoredObject(f"{EVIL}/{name}", "", 1) for name in ("config.json", "model.safetensors")}
    network = Network(Commit("", "", "", (Part(objects, {}),), {"parameters": 1}))
    scores = Scores(Commit("", "", "", (), {"validation": {"top1": 1.0}, "test": {"top1": 1.0}}), LocalStore("/"))
    table.show(Outcome([Round("rounds/0", recipe, network, scores)], "auto"), EVIL, [1.0], [], {})
    assert f"best network: {printed.plain(EVIL)}/best" in said()


def test_nothing_else_prints_and_nothing_writes_csv() -> None:
    """The door is the only one: no print, no stream and no console of Rich's beside it; and CSV is only read."""
    for path in sorted(FOLDER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            words = ast.unparse(node) if isinstance(node, ast.Call | ast.Attribute) else ""
            assert not words.startswith("print("), path
            assert words not in {"csv.writer", "csv.DictWriter", "pyarrow.csv.write_csv"}, path
            if path.name not in {"printed.py", "ray_private.py"}:
                assert words not in {"sys.stdout", "sys.stderr"}, path
            assert path.name == "printed.py" or not words.startswith(("Console(", "traceback.print")), path
