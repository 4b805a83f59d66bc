"""Completion in a shell: the script that turns it on, and the answers it gets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.in_process import Call

from ray_ns.cli import VERBS

PROGRAM = str(Path(sys.executable).with_name("ray-ns"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed_for_the_shell_that_is_named(ray_ns: Call, shell: str) -> None:
    done = ray_ns("--show-completion", shell)
    assert (done.code, done.err) == (0, "")
    assert "_RAY_NS_COMPLETE=complete_" + shell in done.out


def test_a_shell_that_is_not_known_is_one_line(ray_ns: Call) -> None:
    done = ray_ns("--show-completion", "tcl")
    assert (done.code, done.out) == (2, "")
    assert "bash" in done.err


def asked(**how: str) -> str:
    """What the program answers a shell."""
    done = subprocess.run([PROGRAM], env={**os.environ, **how}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_bash_is_told_every_verb() -> None:
    said = asked(_RAY_NS_COMPLETE="complete_bash", COMP_WORDS="ray-ns ", COMP_CWORD="1")
    assert set(said.split()) == {verb.replace("_", "-") for verb in VERBS}


def test_fish_gets_the_tabs_of_its_own_form() -> None:
    words = {"_TYPER_COMPLETE_FISH_ACTION": "get-args", "_TYPER_COMPLETE_ARGS": "ray-ns verif"}
    assert asked(_RAY_NS_COMPLETE="complete_fish", **words).startswith("verify\tRe-hash everything")


def test_bash_itself_completes_by_the_script(tmp_path: Path) -> None:
    script = subprocess.run([PROGRAM, "--show-completion", "bash"], capture_output=True, text=True, check=True).stdout
    (tmp_path / "complete.sh").write_text(script)
    ask = f"source {tmp_path}/complete.sh; COMP_WORDS=(ray-ns verif); COMP_CWORD=1; _ray_ns_completion {PROGRAM}; "
    done = subprocess.run(["bash", "-c", f"{ask} echo ${{COMPREPLY[@]}}"], capture_output=True, text=True, check=True)
    assert done.stdout == "verify\n"
