"""The size of the house: files, functions and parameter lists that one reads at once, and Ray in one room."""

import ast
from pathlib import Path

import pytest

import ray_ns

ROOT = Path(ray_ns.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
# A command of the command line: its parameters are its options.
COMMANDS = {("cli.py", "ingest")}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_a_function_and_its_parameters_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name
            named = [it.arg for it in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            own = [it for it in named if it not in {"self", "cls"}]
            assert len(own) <= 8 or (name_of(path), node.name) in COMMANDS, node.name


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_engine_imports_ray(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [it.name for it in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        imports = any(it.partition(".")[0] == "ray" for it in modules)
        assert not imports or name_of(path).startswith("engine/"), path
