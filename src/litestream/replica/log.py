"""Log lines and errors as the seed words them."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from litestream.descriptors import SHORTAGE
from litestream.errors import LitestreamError

REPEAT_AFTER = 30.0
"""Seconds for which an error that stays the same is not logged again."""


class ReplicaLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts `DB(NAME): ` before each message, and `db` and `replica` among its fields (`extra={"fields": …}`)."""

    def __init__(self, logger: logging.Logger, path: str | None, name: str) -> None:
        super().__init__(logger, {})
        self.name_of_replica = f"{path}({name})" if path is not None else name
        self._prefix = f"{self.name_of_replica}: "
        self._fields: dict[str, object] = {"replica": name} if path is None else {"db": path, "replica": name}

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ANN401 - as in logging
        if not self.isEnabledFor(level):
            return
        extra: Mapping[str, Any] = kwargs.pop("extra", None) or {}
        fields = {**self._fields, **extra.get("fields", {})}
        # Formatted here, because the prefix is no format string: a path may hold %.
        text = self._prefix + (str(msg) % args if args else str(msg))
        self.logger.log(level, text, extra={**extra, "fields": fields}, **kwargs)


class Repeats:
    """Which errors are to be told: each at once, but one that stays the same every 30 s only, with a count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._text = ""
        self._at = 0.0
        self._held = 0

    def tell(self, text: str) -> int | None:
        """How often it came since it was told last, 0 for a new one; None if it is not to be told now."""
        now, same = self._clock(), text == self._text
        if same and now - self._at < REPEAT_AFTER:
            self._held += 1
            return None
        held, self._held = self._held if same else 0, 0
        self._text, self._at = text, now
        return held

    def over(self) -> None:
        """The next error is a new one."""
        self._text, self._held = "", 0


class ErrorLog:
    """Logs the errors of one loop: each at once, but one that stays the same every 30 s only, with a count."""

    def __init__(
        self,
        logger: logging.LoggerAdapter[logging.Logger],
        what: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._who = getattr(logger, "name_of_replica", what)
        self._what = what
        self._repeats = Repeats(clock)

    def failed(self, error: Exception) -> None:
        """`monitor error: E`. What is no error of ours or of the system is logged with its traceback."""
        if SHORTAGE.tell(self._who, error):
            return
        text = str(error) or type(error).__name__
        repeated = self._repeats.tell(text)
        if repeated is None:
            return
        fields = {"repeated": repeated} if repeated else {}
        expected = isinstance(error, LitestreamError | OSError)
        self._logger.error(
            "%s error: %s", self._what, text, extra={"fields": fields}, exc_info=None if expected else error
        )

    def succeeded(self) -> None:
        """The next error is a new one."""
        self._repeats.over()


@contextlib.contextmanager
def prefixed(prefix: str) -> Iterator[None]:
    """Put `prefix` before the text of an error of ours, which stays the error that it is."""
    try:
        yield
    except LitestreamError as error:
        error.args = (f"{prefix}{error}",)
        raise
