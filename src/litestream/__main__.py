"""The command `litestream`, and `python -m litestream`."""

import os
import sys


def main() -> None:
    """Run the command line and exit with its status."""
    if sys.argv[1:2] in (["replicate"], ["restore"]):
        # Before anything else: one that is stopped while it is still being loaded ends in order too.
        from litestream.daemon.signals import StopSignals

        StopSignals().install()
    _open_closed_streams()
    if sys.argv[1:] == ["version"]:
        # Shells, cron jobs and container health checks run this all the time: nothing else is imported if all is well.
        from litestream.version import VERSION

        try:
            sys.stdout.write(f"{VERSION}\n")
            sys.stdout.flush()
            return
        except OSError:
            pass  # the command line below says why
    try:
        from litestream.cli import run
    except KeyboardInterrupt:
        sys.exit(1)
    sys.exit(run(sys.argv[1:]))


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
