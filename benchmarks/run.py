"""The one command: `uv run --group bench python benchmarks/run.py`. What it does is in `command.py`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # The folder above, and not this one: the modules are a package, wherever the command is called from.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from benchmarks.command import main

    sys.exit(main())
