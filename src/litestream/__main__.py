"""The command `litestream`, and `python -m litestream`."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        run = _prepared()
    except KeyboardInterrupt:
        sys.exit(1)
    if run is not None:
        _end(run(sys.argv[1:]))


def _end(code: int) -> NoReturn:
    """Exit with a status.

    obstore has threads of its own that cannot be stopped, and one that wants the interpreter while it is being taken
    apart aborts the process: the status of a command that has done everything would be that of a crash
    (github.com/PyO3/pyo3-async-runtimes/issues/40). So everything is ended as usual, except the interpreter itself.
    """
    if "obstore" in sys.modules:
        import atexit
        import threading

        if ending := sys.modules.get("litestream.storage.obs.ending"):
            atexit.unregister(ending.settle)  # it is for those who end the usual way
        threading._shutdown()  # type: ignore[attr-defined]  # these two are what the interpreter itself calls first
        atexit._run_exitfuncs()
        os._exit(code)
    sys.exit(code)


def _prepared() -> Callable[[Sequence[str]], int] | None:
    """What runs the command line, with signals and streams in order; None if it is done already."""
    if sys.argv[1:2] in (["replicate"], ["restore"]):
        # Before anything else: one that is stopped while it is still being loaded ends in order too.
        from litestream.daemon.signals import StopSignals

        StopSignals(hold_hangups=sys.argv[1] == "replicate").install()
    _open_closed_streams()
    if sys.argv[1:] == ["version"]:
        # Shells, cron jobs and container health checks run this all the time: nothing else is imported if all is well.
        from litestream.version import VERSION

        try:
            sys.stdout.write(f"{VERSION}\n")
            sys.stdout.flush()
            return None
        except OSError:
            pass  # the command line says why
    from litestream.cli import run

    return run


def _open_closed_streams() -> None:
    """Give closed standard streams the null device.

    Otherwise the next file that is opened, a database or an object of a replica, gets such a number, and log lines
    are written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, so this one
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 for good


if __name__ == "__main__":
    main()
