"""`litestream completion`: what the shells offer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.cli import OURS
from litestream import cli
from litestream.cli.completion import FOLDER, SHELLS
from litestream.cli.completion_scripts import script

REGENERATE = "run: uv run python -m litestream.cli.completion_scripts"
ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_litestream
printf '%s\\n' "${COMPREPLY[@]}"
"""


def offered(*words: str) -> list[str]:
    """What bash offers for the last of the words."""
    command = ["bash", "--norc", "-c", ASK, "ask", f"{FOLDER}/litestream.bash", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_scripts_are_current(shell: str) -> None:
    """What is printed is what the table of commands and flags says."""
    printed = OURS.run("completion", shell)
    assert (printed.code, printed.err) == (0, "")
    assert printed.out == script(shell), REGENERATE


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["re"], ["register", "reload", "replicate", "reset", "restore"]),
        (["help", "ver"], ["verify", "version"]),
        (["replicate", "-ex"], ["-exec"]),
        (["replicate", "--ex"], ["--exec"]),
        (["replicate", "-config", "x.yml", "-onc"], ["-once"]),
        (["restore", "-integrity-check", ""], ["none", "quick", "full"]),
        (["restore", "--integrity-check", "q"], ["quick"]),
        (["restore", "-integrity-check", "=", "q"], ["quick"]),
        (["restore", "-integrity-check", "="], ["none", "quick", "full"]),
        (["config", ""], ["check", "migrate"]),
        (["config", "migrate", "-to", ""], ["here", "0.5", "0.3"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["restore", "-o", ""], []),
        (["restore", ""], []),
    ],
)
def test_bash_completes(words: list[str], expected: list[str]) -> None:
    """Commands, flags with one dash and two, and values; where nothing is offered, bash offers files."""
    assert offered("litestream", *words) == expected


def test_bash_knows_every_command_and_flag() -> None:
    """Nothing is missing that the program takes."""
    assert offered("litestream", "") == [*cli.VERBS, "help"]
    for verb in cli.VERBS:
        assert offered("litestream", verb, "-") == [
            *(f"-{flag.name}" for flag in cli.load_verb(verb).FLAGS.flags),
            "-h",
        ]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_reads_its_script(shell: str, tmp_path: Path) -> None:
    """The script has no error of syntax."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n", f"{FOLDER}/litestream.{shell}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["tcsh"], "Error: litestream completion tcsh: no script for this shell: there is bash, zsh, fish\n"),
        ([], "Error: the shell is required: bash, zsh or fish"),
    ],
)
def test_another_shell_is_an_error(args: list[str], message: str) -> None:
    """One line says which shells there are."""
    done = OURS.run("completion", *args)
    assert done.code == 1
    assert done.err.startswith(message)
