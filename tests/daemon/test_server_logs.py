"""Log lines: their form, and that nothing in them can do harm."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestream.daemon import logs
from litestream.errors import ConfigError


def record(message: str, level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("litestream", level, __file__, 1, message, (), None)
    made.created = 1_767_323_045.678
    made.fields = fields
    return made


@pytest.fixture
def quiet_logger() -> Iterator[None]:
    logger = logging.getLogger("litestream")
    before = (list(logger.handlers), logger.propagate, logger.level)
    yield
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


def test_text_line_is_time_level_message_and_fields() -> None:
    """A text line has the UTC time with milliseconds, the level, the seed's text, then the fields."""
    line = logs.TextFormatter().format(record("/db(file): wal segment written: g/0:0 sz=812", size=812, why="a b"))
    assert line == '2026-01-02T03:04:05.678Z INFO /db(file): wal segment written: g/0:0 sz=812 size=812 why="a b"'


def test_json_line_has_the_same_text_as_msg() -> None:
    """A JSON line has time, level, msg and the fields with their types."""
    made = record("new generation", logging.WARNING, n=3, ok=True, none=None, path=Path("/x"))
    assert json.loads(logs.JSONFormatter().format(made)) == {
        "time": "2026-01-02T03:04:05.678Z",
        "level": "WARN",
        "msg": "new generation",
        "n": 3,
        "ok": True,
        "none": None,
        "path": "/x",
    }


def test_what_the_text_says_already_is_a_field_in_json_only() -> None:
    """An official line keeps its words, and who collects JSON finds the database in a field of its own."""
    made = record("initialized db: /db")
    vars(made).update(logs.facts(db="/db", level="none"))
    assert logs.TextFormatter().format(made) == "2026-01-02T03:04:05.678Z INFO initialized db: /db"
    assert json.loads(logs.JSONFormatter().format(made)) == {
        "time": "2026-01-02T03:04:05.678Z", "level": "INFO", "msg": "initialized db: /db", "db": "/db",
    }  # fmt: skip


def test_fields_cannot_replace_what_a_json_line_is_about() -> None:
    """A field named `level` does not fake the level."""
    made = record("x")
    made.fields = {"level": "ERROR", "msg": "forged"}
    entry = json.loads(logs.JSONFormatter().format(made))
    assert (entry["level"], entry["msg"]) == ("INFO", "x")


@given(st.text(), st.text(), st.text(max_size=5))
def test_no_text_can_forge_a_line(message: str, value: str, key: str) -> None:
    """Whatever stands in a path or a value, a record is one line without control characters, in both forms."""
    made = record("x")
    made.msg, made.args = "%s", (message,)
    made.fields = {key: value}
    for line in (logs.TextFormatter().format(made), logs.JSONFormatter().format(made)):
        assert len(line.splitlines()) == 1
        assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202e]", line)
        line.encode("utf-8")


@given(st.text(min_size=1))
def test_a_quoted_value_cannot_add_a_field(value: str) -> None:
    """A value with spaces or equals signs stays inside its quotes."""
    shown = logs.quoted(value)
    if shown.startswith('"'):
        assert re.fullmatch(r'"(?:[^"\\]|\\.)*"', shown)
    else:
        assert not re.search(r'[\s="]', shown)


def test_bytes_of_a_path_that_are_no_utf8_are_shown() -> None:
    """Undecodable bytes of a file name appear as their hex values."""
    assert logs.safe(os.fsdecode(b"/a\xff\n")) == "/a\\xff\\n"


def test_an_exception_becomes_a_field_and_its_traceback_only_at_debug(quiet_logger: None) -> None:
    """A record with an exception names it; the traceback is for those who asked."""
    try:
        raise ValueError("two\nlines")
    except ValueError as e:
        made = record("sync failed")
        made.exc_info = (ValueError, e, e.__traceback__)
    logger = logging.getLogger("litestream")
    logger.setLevel(logging.INFO)
    assert logs.TextFormatter().format(made).endswith('sync failed error="ValueError: two\\nlines"')
    logger.setLevel(logs.TRACE)
    assert "traceback=" in logs.TextFormatter().format(made)


def test_level_flag_beats_environment_beats_configuration() -> None:
    """-log-level, LOG_LEVEL, logging.level, in this order; info where none is given."""
    assert logs.choose_level("trace", {"LOG_LEVEL": "error"}, "warn") == logs.TRACE
    assert logs.choose_level("", {"LOG_LEVEL": "ERROR"}, "warn") == logging.ERROR
    assert logs.choose_level("", {}, "warn") == logging.WARNING
    assert logs.choose_level("", {}, "") == logging.INFO


@pytest.mark.parametrize(
    ("flag", "environ", "configured", "source"),
    [("loud", {}, "", "-log-level"), ("", {"LOG_LEVEL": "loud"}, "", "LOG_LEVEL"), ("", {}, "loud", "logging.level")],
)
def test_an_unknown_level_is_an_error_that_names_its_source(
    flag: str, environ: dict[str, str], configured: str, source: str
) -> None:
    """A level that does not exist is refused wherever it comes from."""
    with pytest.raises(ConfigError, match=rf'{source}: unknown log level "loud": use one of trace, debug'):
        logs.choose_level(flag, environ, configured)


def test_a_closed_pipe_never_raises() -> None:
    """When the reader of the log is gone, lines are dropped and nobody notices."""
    reading, writing = os.pipe()
    os.close(reading)
    handler = logs.DescriptorHandler(writing)
    handler.setFormatter(logs.TextFormatter())
    handler.handle(record("one"))
    handler.handle(record("two"))
    os.close(writing)
    assert handler.dropped == 2


def test_a_stalled_reader_does_not_stop_the_writer_and_the_gap_is_told() -> None:
    """A full pipe delays by 50 ms once; when it is read again, a line says how many are missing."""
    reading, writing = os.pipe()
    handler = logs.DescriptorHandler(writing)
    handler.setFormatter(logs.TextFormatter())
    while not handler.dropped:
        handler.handle(record("x" * 1000))
    handler.handle(record("lost"))
    lost = handler.dropped
    assert lost >= 2
    os.read(reading, 1 << 20)
    handler.handle(record("back"))
    os.close(writing)
    with open(reading, "rb") as f:
        text = f.read().decode()
    assert f"WARN {lost} log lines were dropped: they could not be written\n" in text
    assert text.endswith("INFO back\n")


def test_a_record_that_cannot_be_formatted_is_told_and_harmless() -> None:
    """A mistake in a log call costs its text, not its caller."""
    reading, writing = os.pipe()
    handler = logs.DescriptorHandler(writing)
    handler.setFormatter(logs.TextFormatter())
    broken = record("%d")
    broken.args = ("no number",)
    handler.handle(broken)
    os.close(writing)
    with open(reading, "rb") as f:
        assert b"ERROR log record cannot be formatted error=" in f.read()


def test_setup_writes_to_stdout_or_stderr(capfd: pytest.CaptureFixture[str], quiet_logger: None) -> None:
    """stdout is the default, as the seed has it; both forms go where they are told."""
    logs.setup(logging.INFO).info("to stdout")
    logs.setup(logging.INFO, json=True, stderr=True).info("to stderr")
    logging.getLogger("litestream.replica").debug("not at this level")
    out, err = capfd.readouterr()
    assert out.endswith("Z INFO to stdout\n")
    assert json.loads(err)["msg"] == "to stderr"
