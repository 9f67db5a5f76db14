"""What commands print on stdout: a reader that has gone and a full disk are told apart from everything else."""

from __future__ import annotations

import os
import sys


class OutputError(Exception):
    """Stdout cannot be written; `cause` is what the operating system says."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause)
        self.cause = cause


def write(text: str) -> None:
    """Print text as it is. Raises `OutputError`."""
    try:
        sys.stdout.write(text)
    except OSError as e:
        raise OutputError(e) from e


def flush() -> None:
    """Hand over everything that was printed. Raises `OutputError`."""
    try:
        sys.stdout.flush()
    except OSError as e:
        raise OutputError(e) from e


def give_up() -> None:
    """Send what is still to be written nowhere, so that the interpreter does not try it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
