"""The command `litestream`, and `python -m litestream`."""

import sys


def main() -> None:
    """Run the command line and exit with its status."""
    if sys.argv[1:2] == ["version"] and len(sys.argv) == 2:
        from litestream.version import VERSION

        sys.stdout.write(f"{VERSION}\n")
        return
    from litestream.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
