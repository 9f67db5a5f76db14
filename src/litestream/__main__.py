"""The command `litestream`, and `python -m litestream`."""

import sys


def main() -> None:
    """Run the command line and exit with its status."""
    if sys.argv[1:] == ["version"]:
        # Shells, cron jobs and container health checks run this all the time: nothing else is imported.
        from litestream.version import VERSION

        try:
            sys.stdout.write(f"{VERSION}\n")
            sys.stdout.flush()
        except OSError:
            sys.exit(1)
        return
    try:
        from litestream.cli import run
    except KeyboardInterrupt:
        sys.exit(1)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
