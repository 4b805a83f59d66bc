"""Limits on the sizes of files and functions, and which of them import Ray. import-linter holds the other arrows."""

import ast
from collections.abc import Iterator
from pathlib import Path

import ray_ns

ROOT = Path(ray_ns.__file__).parent
FILES = {path.relative_to(ROOT.parent).as_posix(): path.read_text() for path in sorted(ROOT.rglob("*.py"))}
MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 400, 60, 8
COMMANDS = "ray_ns/cli/"  # its commands are excepted: each parameter of theirs is an option of the command line
ENGINE = "ray_ns/engine/"
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(source: str) -> Iterator[Function]:
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, Function))


def lines_of(function: Function) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - min([function.lineno, *(it.lineno for it in function.decorator_list)]) + 1


def parameters_of(function: Function) -> int:
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return sum(it.arg not in {"self", "cls"} for it in every)


def imported(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (it.name for it in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


def test_no_file_is_too_long() -> None:
    assert {name: source.count("\n") for name, source in FILES.items() if source.count("\n") > MAX_FILE} == {}


def test_no_function_is_too_long() -> None:
    found = {(name, it.name): lines_of(it) for name, source in FILES.items() for it in functions(source)}
    assert {where: lines for where, lines in found.items() if lines > MAX_FUNCTION} == {}


def test_no_function_takes_too_many_parameters() -> None:
    found = {
        (name, it.name): parameters_of(it)
        for name, source in FILES.items()
        for it in functions(source)
        if not (name.startswith(COMMANDS) and it.decorator_list)
    }
    assert {where: count for where, count in found.items() if count > MAX_PARAMETERS} == {}


def test_only_the_engine_imports_ray() -> None:
    found = {name for name, source in FILES.items() if "ray" in {it.split(".")[0] for it in imported(source)}}
    assert found
    assert {name for name in found if not name.startswith(ENGINE)} == set()
