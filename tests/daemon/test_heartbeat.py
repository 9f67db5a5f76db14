"""The heartbeat: sent while everything is safe, withheld otherwise, and silent about its address."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, cast

import pytest

from helpers.app import App
from helpers.cli import wait_until
from helpers.rig import Rig
from litestream.core.position import Pos
from litestream.daemon.heartbeat import Heartbeat
from litestream.daemon.server import Server
from litestream.daemon.status import DatabaseStatus, ReplicaStatus

SECRET = "/ping/hush-hush"


class Pings:
    """A server on loopback that counts requests and answers with `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.seen: list[tuple[str, str]] = []
        pings = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pings.seen.append((self.command, self.path))
                self.send_response(pings.status)
                if pings.status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Nothing on stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False  # so that closing waits for those that answer
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}{SECRET}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def pings() -> Iterator[Pings]:
    server = Pings()
    yield server
    server.close()


class Safe:
    """A database with one replica, as an entry's observer sees it."""

    def __init__(self, lag: float = 0.0) -> None:
        self.lag = lag
        self.kind = "ok"

    def look(self) -> DatabaseStatus:
        kind = "behind" if self.lag else self.kind
        return DatabaseStatus("/app.db", "ok", replicas=(ReplicaStatus("f", "file", "/b", kind, Pos(), self.lag),))


class Beating:
    """A heartbeat over made-up databases, with a clock that the test moves."""

    def __init__(self, url: str, *databases: Safe, followers: Sequence[Callable[[], DatabaseStatus]] = ()) -> None:
        self.now = 0.0
        entries = [SimpleNamespace(observer=database, look=None) for database in databases]
        entries += [SimpleNamespace(observer=None, look=follower) for follower in followers]
        server = cast("Any", SimpleNamespace(entries=entries))
        logger = logging.getLogger("litestream.test-heartbeat")
        self.heartbeat = Heartbeat(url, 300, cast("Server", server), logger, lambda: self.now)

    async def at(self, now: float) -> None:
        self.now = now
        await self.heartbeat.beat()


async def test_one_per_interval(pings: Pings) -> None:
    """It is sent at once, and again when the interval is over, as a GET of the address."""
    beating = Beating(pings.url, Safe())
    for now in (0, 15, 299, 300, 310, 600):
        await beating.at(now)
    assert pings.seen == [("GET", SECRET)] * 3


async def test_withheld_while_one_database_is_not_safe(pings: Pings, caplog: pytest.LogCaptureFixture) -> None:
    """One replica that is behind by more than the interval, or in error, is enough; that is said once."""
    late = Safe(lag=301)
    beating = Beating(pings.url, Safe(), late)
    await beating.at(0)
    await beating.at(15)
    assert pings.seen == []
    assert caplog.messages == ["heartbeat withheld: not every database is safe"]
    late.lag = 299
    await beating.at(30)
    assert len(pings.seen) == 1
    late.lag, late.kind = 0, "error"
    await beating.at(330)
    assert len(pings.seen) == 1
    nothing = Beating(pings.url)
    await nothing.at(0)
    assert len(pings.seen) == 1


async def test_withheld_while_a_follower_does_not_follow(pings: Pings) -> None:
    """A database that follows another counts as well, also where nothing is replicated."""
    status = ["error"]
    beating = Beating(pings.url, followers=[lambda: DatabaseStatus("/copy.db", status[0])])
    await beating.at(0)
    assert pings.seen == []
    status[0] = "ok"
    await beating.at(15)
    assert len(pings.seen) == 1


@pytest.mark.parametrize("status", [500, 302, 404])
async def test_a_failure_is_logged_without_the_address(
    pings: Pings, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """An answer that is not 2xx, a redirect among them, is a failure; it is tried again after a minute."""
    pings.status = status
    beating = Beating(pings.url, Safe())
    await beating.at(0)
    await beating.at(30)
    assert len(pings.seen) == 1
    assert caplog.messages == ["heartbeat failed"]
    fields = caplog.records[0].__dict__["fields"]
    assert fields == {"host": "127.0.0.1", "error": f"the answer was {status}"}
    pings.status = 204
    await beating.at(60)
    await beating.at(120)
    assert len(pings.seen) == 2


async def test_nobody_there(caplog: pytest.LogCaptureFixture) -> None:
    """An address that does not answer is a failure as well, and its secret stays one."""
    beating = Beating(f"http://127.0.0.1:9{SECRET}", Safe())
    await beating.at(0)
    assert caplog.messages == ["heartbeat failed"]
    assert "hush" not in str(caplog.records[0].__dict__)
    assert "refused" in str(caplog.records[0].__dict__["fields"])


def test_from_a_real_replicator(rig: Rig, app: App, pings: Pings) -> None:
    """A replicator whose database is safe sends it, and no log line shows the address."""
    app.create(rig.db)
    rig.start(top={"heartbeat-url": pings.url, "heartbeat-interval": "1m"}, args=("-log-level", "debug"))
    wait_until(lambda: pings.seen, "a heartbeat", timeout=30)
    rig.daemon.wait_for_log("heartbeat sent")
    assert "hush" not in rig.daemon.text()
    assert rig.daemon.stop() == 0
