"""The end of a program that has used obstore."""

from __future__ import annotations

import atexit
import time

_QUIET = 0.1


def settle() -> None:
    """Let obstore's threads finish what they hold before the interpreter is taken apart.

    A thread of theirs tells the event loop that a request has ended, and only then lets go of Python's objects. If the
    program ends in between, that thread is ended inside foreign code, and the process aborts in spite of its success
    (github.com/PyO3/pyo3-async-runtimes/issues/40): 19 of 300 short programs did, none with a pause of 10 ms.
    """
    time.sleep(_QUIET)


def settle_at_exit() -> None:
    """Do that at the end of this process, once."""
    atexit.unregister(settle)
    atexit.register(settle)
