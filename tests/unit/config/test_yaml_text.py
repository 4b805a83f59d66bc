"""No text that is given as a config costs more than a second or 200 MB, and each refusal is one line with its place."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_ns.config.yaml_text import MAX_CHARACTERS, MAX_NODES, compose, construct

DEEP = 100_000
BOMB = (
    "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    + "run: *a11\n"
)
MERGE_BOMB = (
    "a0: &a0 {x: 1}\n"
    + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))
    + "run: *a11\n"
)

# name: (text, words of the refusal)
HOSTILE: dict[str, tuple[str, list[str]]] = {
    "the same key twice": ("run: {}\ndata:\n  pool: a\n  pool: b\n", ["line 4", "'pool'", "line 3"]),
    "the same section twice": ("run: {seed: 1}\nrun: {seed: 2}\n", ["line 2", "'run'", "line 1"]),
    "one class as number and as text": ('select:\n  quotas: {1: 5, "1": 6}\n', ["line 2", "'1'"]),
    "one class in two spellings": ("select:\n  quotas: {1: 5, 0x1: 6}\n", ["line 2", "'0x1'"]),
    "one class with zeros before it": ("select:\n  quotas: {1: 5, 01: 6}\n", ["line 2", "'01'"]),
    "two merges": ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a\n", ["line 4", "'<<'", "line 3"]),
    "aliases of aliases": (BOMB, ["aliases", "line 6"]),
    "merges of merges": (MERGE_BOMB, ["aliases", "line "]),
    "a chain of aliases": (
        "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{x: *a{n - 1}}}\n" for n in range(1, 2000)),
        ["line 32", "nested deeper than 32"],
    ),
    "a list that holds itself": ("run: &a [*a]\n", ["line 1", "holds itself"]),
    "a mapping that holds itself": ("run: &a\n  b:\n    c: *a\n", ["holds itself"]),
    "a merge of itself": ("run: &a\n  <<: *a\n", ["holds itself"]),
    "deep lists": ("run: " + "[" * DEEP, ["line 1", "nested deeper than 32"]),
    "deep mappings": ("run: " + "{a: " * DEEP, ["line 1", "nested deeper than 32"]),
    "deep blocks": ("\n".join(" " * n + "a:" for n in range(300)), ["nested deeper than 32"]),
    "deep sequences": ("run:\n  " + "- " * DEEP + "x", ["line 2", "nested deeper than 32"]),
    "deep keys": ("? " * DEEP + "x", ["line 1", "nested deeper than 32"]),
    "many values": ("run: [" + "1," * (MAX_NODES + 1) + "]", ["line 1", "100,000"]),
    "a long file": ("a" * (MAX_CHARACTERS + 1), ["1,048,576"]),
    "5,000 digits": ("run: {seed: " + "1" * 5000 + "}", ["line 1", "64 bits"]),
    "beyond 64 bits": ("run:\n  seed: 9223372036854775808\n", ["line 2", "64 bits"]),
    "beyond 64 bits, in base 16": ("run:\n  seed: 0x8000000000000000\n", ["line 2", "64 bits"]),
    "below 64 bits": ("run:\n  seed: -9223372036854775809\n", ["line 2", "64 bits"]),
    "a key of 900 digits": ("select: {quotas: {" + "1" * 900 + ": 1}}", ["line 1", "64 bits"]),
    "a list as key": ("run:\n  [a]: 1\n", ["line 2", "a key is a name or a number"]),
    "a tag": ("run:\n  dir: !!binary aGk=\n", ["line 2", "tag"]),
    "a number by tag": ("run: !!int x\n", ["line 1", "tag"]),
    "a date by tag": ("run: !!timestamp x\n", ["line 1", "tag"]),
    "an object by tag": ("run: !!python/object/apply:os.system ['true']\n", ["line 1", "tag"]),
    "two documents": ("run: {}\n---\nrun: {}\n", ["line 2", "second document"]),
    "a tab": ("run:\n\tdir: x\n", ["line 2"]),
    "NUL": ("run:\n  dir: a\0b\n", ["line 2", "'\\x00'"]),
    "an escape": ("run:\n  dir: \x1b[2J\n", ["line 2", "'\\x1b'"]),
    "no such anchor": ("run: {}\ndata: *x\n", ["line 2", "alias"]),
    "an open bracket": ("run: [\n", ["line 2"]),
    "a reserved character": ("data:\n  pool: @scratch\n", ["line 2", 'pool: "@scratch"']),
    "a colon": ("data:\n  pool: set: one\n", ["line 2", 'pool: "set: one"']),
    "a percent sign": ("data:\n  pool: %x\n", ["line 2", 'pool: "%x"']),
    "a star": ("data:\n  pool: *x\n", ["line 2", 'pool: "*x"']),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused_in_one_line_with_its_place(name: str) -> None:
    text, words = HOSTILE[name]
    with pytest.raises(ValueError) as caught:
        compose(text)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    for word in words:
        assert word in message


def test_in_less_than_a_second_and_200_mb_each(tmp_path: Path) -> None:
    """One process reads them all, with a stack of 1 MB: what recursed as deep as the text would end it."""
    for number, (text, _) in enumerate(HOSTILE.values()):
        (tmp_path / f"{number:02}.yaml").write_text(text)
    (tmp_path / "most.yaml").write_text("select:\n  quotas:\n" + "".join(f"    {n}: 100\n" for n in range(49_000)))
    (tmp_path / "unknown.yaml").write_text("".join(f"rum{n}: 1\n" for n in range(49_000)))
    program = f"""
import json, pathlib, resource, sys, time
from ray_ns.config.read import load
from ray_ns.errors import InputError
resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(pathlib.Path({str(tmp_path)!r}).iterdir()):
    began = time.process_time()
    try:
        load(path)
        said = ""
    except InputError as error:
        said = str(error)
    took = time.process_time() - began
    print(json.dumps([path.name, took, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, said]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(HOSTILE) + 2
    for name, seconds, megabytes, said in rows:
        assert said.startswith(str(tmp_path / name)), name
        assert len(said) < 4000, name
        assert megabytes < 200, name
        assert seconds < 10, name  # a machine may be ten times as slow


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("[1e-3, 1.5E+3, 2e3, 1.5, .5, 1., -.inf]", [0.001, 1500.0, 2000.0, 1.5, 0.5, 1.0, float("-inf")]),
        ("[-1, +2, 0, 1_000, 0x10]", [-1, 2, 0, 1000, 16]),
        ("[9223372036854775807, -9223372036854775808]", [2**63 - 1, -(2**63)]),
        ("[2024-11-25, 2024-13-45, 010, 190:20:30, 1e]", ["2024-11-25", "2024-13-45", "010", "190:20:30", "1e"]),
        ("[yes, No, true, ~, null]", [True, False, True, None, None]),
        ("a: &x {b: 1}\nc: *x\nd: {<<: *x, b: 2}\n", {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 2}}),
        ("%YAML 1.1\n---\na: 1\n...\n", {"a": 1}),
    ],
)
def test_what_is_meant_is_read(text: str, value: Any) -> None:
    assert construct(compose(text)) == value


def test_what_yaml_writes_is_read_back() -> None:
    values = {"a": [1, -2.5, 1e-30, "1", "no", "2024-11-25", None, True, {"b": "x: y #z"}], 3: "ü"}
    assert construct(compose(yaml.safe_dump(values, allow_unicode=True))) == values
