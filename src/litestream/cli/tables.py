"""The official tables (two spaces between columns, lower-case headers), and the same rows as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from litestream.cli import stdout
from litestream.cli.flags import Parsed
from litestream.daemon.logs import safe


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The rows below the header; every column but the last is padded to its widest cell plus two spaces."""
    cells = [[safe(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) + 2 for i in range(len(header))]
    widths[-1] = 0
    return "".join("".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) + "\n" for row in cells)


def write_entries(parsed: Parsed, columns: Sequence[str], entries: Sequence[Mapping[str, object]]) -> None:
    """Print entries on stdout: with `-json` all they hold, else the table of these columns."""
    if parsed.switch("json"):
        write_json(entries)
    else:
        stdout.write(table(columns, [[_cell(entry[column]) for column in columns] for entry in entries]))


def _cell(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def write_json(value: object) -> None:
    """Print a JSON document on stdout. Bytes of a path that are no UTF-8 come out as text that shows them."""
    stdout.write(json.dumps(_clean(value), indent=2) + "\n")


def _clean(value: object) -> object:
    if isinstance(value, str):
        # A lone surrogate is legal in Python's JSON and nowhere else.
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value
