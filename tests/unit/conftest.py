"""``ray-ns`` in this process, through the same ``main`` that the installed command calls."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from support.dying import Die, dying_writes
from support.in_process import Call, Left, undated

from ray_ns import cli


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Die]:
    """See ``support.dying``."""
    yield from dying_writes(monkeypatch)


@pytest.fixture
def ray_ns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*words: object) -> Left:
        monkeypatch.setattr(sys, "argv", ["ray-ns", *map(str, words)])
        capsys.readouterr()
        code: Any = 0
        try:
            cli.main()
        except SystemExit as left:
            code = left.code or 0
        out, err = capsys.readouterr()
        return Left(code, out, undated(err, code))

    return call
