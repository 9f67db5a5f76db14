"""Log lines: the seed's text, or JSON, written so that no value can forge a line and no reader can stop replication.

Text lines are `TIME LEVEL MESSAGE key=value …`; the fields come from `record.fields` (`extra={"fields": {…}}`)::

    2026-01-02T15:04:05.678Z INFO /var/lib/app.db(file): wal segment written: 0123456789abcdef/00000001:00000000 sz=812

JSON lines are one object each with `time`, `level`, `msg` and the fields, and besides those of `record.facts`, which
the text says already.
"""

from __future__ import annotations

import logging
import os
import re
import select
import time
from collections.abc import Mapping

from litestream.errors import ConfigError

TRACE = 5
"""Below DEBUG: every step of every sync."""

LEVELS = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
LEVEL_NAMES = ("trace", "debug", "info", "warn", "error")
_SHOWN = {TRACE: "TRACE", logging.WARNING: "WARN"}

# Control characters, the separators and direction marks that a viewer may take for a line break or use to reorder a
# line, and lone surrogates (bytes of a path that are no UTF-8).
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_NEEDS_QUOTES = re.compile(r'[\s="\\]|^$')


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries an undecodable byte in a path
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def safe(text: str) -> str:
    """The text with everything escaped that could break, fake or reorder a line of output."""
    return _UNSAFE.sub(_escape, text)


def quoted(value: object) -> str:
    """A field's value as text lines show it: quoted where it would not read back as one word."""
    text = str(value)
    if not _NEEDS_QUOTES.search(text):
        return safe(text)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{safe(escaped)}"'


def level_name(level: int) -> str:
    """TRACE, DEBUG, INFO, WARN or ERROR."""
    return _SHOWN.get(level) or logging.getLevelName(level)


def _timestamp(seconds: float) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{milliseconds:03d}Z"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = {}
    given = getattr(record, "fields", None)
    if isinstance(given, Mapping):
        fields.update((str(key), value) for key, value in given.items())
    if record.exc_info and record.exc_info[1] is not None:
        fields.setdefault("error", f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}")
        if logging.getLogger("litestream").isEnabledFor(logging.DEBUG):
            from traceback import format_exception

            fields["traceback"] = "".join(format_exception(record.exc_info[1])).rstrip()
    return fields


def facts(**fields: object) -> dict[str, object]:
    """For `extra`: fields of JSON lines only, since the official text has them in its words."""
    return {"facts": fields}


class TextFormatter(logging.Formatter):
    """One line of text per record."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_timestamp(record.created)} {level_name(record.levelno)} {safe(record.getMessage())}"
        for key, value in _fields(record).items():
            line += f" {safe(key)}={quoted(value)}"
        return line


class JSONFormatter(logging.Formatter):
    """One JSON object per record; `msg` has the text that the text form shows."""

    def format(self, record: logging.LogRecord) -> str:
        import json

        entry: dict[str, object] = {
            "time": _timestamp(record.created),
            "level": level_name(record.levelno),
            "msg": safe(record.getMessage()),
        }
        for key, value in {**getattr(record, "facts", {}), **_fields(record)}.items():
            entry.setdefault(key, value if value is None or isinstance(value, bool | int | float) else safe(str(value)))
        return json.dumps(entry)


class DescriptorHandler(logging.Handler):
    """Writes lines to a file descriptor without ever failing, and without waiting for a reader that has stopped.

    A full disk, a closed pipe or a stalled log collector must not stop replication: such lines are dropped, and
    once writing works again a line says how many.
    """

    PATIENCE_MS = 50
    """How long a line waits for a slow reader; once one was dropped, later ones do not wait."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.fd = fd
        self.dropped = 0
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as e:
            line = f"{_timestamp(record.created)} ERROR log record cannot be formatted error={quoted(e)}"
        if self.dropped and self._write(self._notice(record)):
            self.dropped = 0
        if self.dropped or not self._write(line):
            self.dropped += 1

    def _notice(self, record: logging.LogRecord) -> str:
        notice = logging.makeLogRecord({"created": record.created, "levelno": logging.WARNING})
        notice.msg = f"{self.dropped} log lines were dropped: they could not be written"
        return self.format(notice)

    def _write(self, line: str) -> bool:
        data = memoryview((line + "\n").encode("utf-8", "backslashreplace"))
        try:
            ready = self._poll.poll(0 if self.dropped else self.PATIENCE_MS)
            if not ready or not ready[0][1] & select.POLLOUT:
                return False
            while data:
                data = data[os.write(self.fd, data) :]
        except OSError:
            return False
        return True


def parse_level(text: str, source: str) -> int:
    """The level named `text` (any case). Raises `ConfigError` that names `source`."""
    level = LEVELS.get(text.lower())
    if level is None:
        raise ConfigError(f'{source}: unknown log level "{text}": use one of {", ".join(LEVEL_NAMES)}')
    return level


def choose_level(flag: str, environ: Mapping[str, str], configured: str) -> int:
    """`-log-level` beats `LOG_LEVEL`, which beats `logging.level` of the configuration; the default is info."""
    for text, source in (
        (flag, "-log-level"),
        (environ.get("LOG_LEVEL", ""), "environment variable LOG_LEVEL"),
        (configured, "logging.level"),
    ):
        if text:
            return parse_level(text, source)
    return logging.INFO


def setup(level: int, *, json: bool = False, stderr: bool = False) -> logging.Logger:
    """Make the package's logger write to stdout (or stderr) and return it. May be called again."""
    logging.addLevelName(TRACE, "TRACE")
    handler = DescriptorHandler(2 if stderr else 1)
    handler.setFormatter(JSONFormatter() if json else TextFormatter())
    logger = logging.getLogger("litestream")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level)
    return logger
