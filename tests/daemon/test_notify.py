"""What a service manager is told, on a real datagram socket."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.cli import Daemon, Database, wait_until, write_config
from helpers.control import short_folder
from litestream.daemon.notify import Notifier
from litestream.daemon.server import Server


class Manager:
    """The service manager's end: collects datagrams in a thread."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(0.05)
        self._ended = False
        self.got: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._ended:
            try:
                self.got.append(self._socket.recv(4096).decode())
            except TimeoutError:
                continue

    def close(self) -> None:
        self._ended = True
        self._thread.join()
        self._socket.close()

    def wait_for(self, text: str, timeout: float = 20) -> None:
        wait_until(lambda: text in self.got, lambda: f"{text} in {self.got}", timeout)


@contextmanager
def listening(abstract: bool = False) -> Iterator[tuple[Manager, str]]:
    """A manager, and its address as NOTIFY_SOCKET has it."""
    with short_folder() as folder:
        path = str(folder / "notify")
        manager = Manager("\0" + path if abstract else path)
        try:
            yield manager, "@" + path if abstract else path
        finally:
            manager.close()


@pytest.mark.parametrize("abstract", [False, True])
def test_a_service_is_ready_tells_how_it_goes_and_stops(
    abstract: bool, daemons: Callable[..., Daemon], tmp_path: Path
) -> None:
    """READY comes after the databases were looked for, then the status, and STOPPING with more time for the end."""
    config = write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [tmp_path / "rep"])])
    with listening(abstract) as (manager, address):
        daemon = daemons(config).start({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"})
        manager.wait_for("READY=1")
        manager.wait_for("STATUS=replicating 1 database, 1 behind")  # it is not there yet
        wait_until(lambda: manager.got.count("WATCHDOG=1") >= 3, "pings")
        assert daemon.stop() == 0
        manager.wait_for("STOPPING=1")
        states = [text for text in manager.got if text.endswith("=1") and text != "WATCHDOG=1"]
        assert states == ["READY=1", "STOPPING=1"]
        assert manager.got[manager.got.index("STOPPING=1") + 1] == "EXTEND_TIMEOUT_USEC=20000000"


def test_a_process_that_stands_still_is_not_alive(daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """While nothing turns, no ping is sent, whatever the reason is."""
    config = write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [tmp_path / "rep"])])
    with listening() as (manager, address):
        daemon = daemons(config).start({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"})
        manager.wait_for("WATCHDOG=1")
        daemon.freeze()
        time.sleep(0.2)
        before = len(manager.got)
        time.sleep(0.5)
        assert len(manager.got) == before
        daemon.thaw()
        assert daemon.stop() == 0


async def test_no_ping_while_loop_or_threads_hang() -> None:
    """A loop that does not turn, and a lane whose every thread hangs, are each as good as dead."""
    free = threading.Event()
    with listening() as (manager, address), ThreadPoolExecutor(2) as lane:
        notifier = Notifier(address, 0.1)
        task = asyncio.create_task(notifier.run(Server([]), lane))
        try:
            await asyncio.sleep(0.5)
            assert manager.got.count("WATCHDOG=1") >= 4
            time.sleep(0.1)  # noqa: ASYNC251 as below
            before = manager.got.count("WATCHDOG=1")
            time.sleep(0.4)  # noqa: ASYNC251 the loop hangs
            assert manager.got.count("WATCHDOG=1") == before
            hung = [lane.submit(free.wait, 20) for _ in range(2)]
            await asyncio.sleep(0.2)
            before = manager.got.count("WATCHDOG=1")
            await asyncio.sleep(0.4)
            assert manager.got.count("WATCHDOG=1") == before
            free.set()
            assert all(thread.result() for thread in hung)
            await asyncio.sleep(0.3)
            assert manager.got.count("WATCHDOG=1") > before
        finally:
            free.set()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            notifier.close()


def test_the_application_does_not_speak_for_us(daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """The command of -exec sees none of the manager's variables."""
    config = write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [tmp_path / "rep"])])
    command = f"sh -c 'env > {tmp_path}/env'"
    with listening() as (manager, address):
        given = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1", "HERE": "yes"}
        daemon = daemons(config, args=["-exec", command]).start(given)
        assert daemon.wait() == 0
        manager.wait_for("STOPPING=1")
        assert "WATCHDOG=1" not in manager.got  # another process was meant
    seen = (tmp_path / "env").read_text()
    assert "HERE=yes" in seen
    assert "NOTIFY" not in seen
    assert "WATCHDOG" not in seen


async def test_more_time_is_asked_for_until_everything_was_looked_for() -> None:
    """A start that takes long is not cut off, and READY waits for it."""

    class Slow(Server):
        async def tried(self) -> None:
            await asyncio.sleep(0.3)

    with listening() as (manager, address), ThreadPoolExecutor(1) as lane:
        notifier = Notifier(address)
        task = asyncio.create_task(notifier.run(Slow([]), lane))
        await asyncio.sleep(0.15)
        assert "EXTEND_TIMEOUT_USEC=20000000" in manager.got
        assert "READY=1" not in manager.got
        await asyncio.sleep(0.3)
        assert "READY=1" in manager.got
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        notifier.close()


async def test_a_reload_is_told_with_its_time() -> None:
    """RELOADING carries the monotonic time, as Type=notify-reload wants it, and READY ends it."""
    with listening() as (manager, address):
        notifier = Notifier(address)
        before = time.monotonic_ns() // 1000
        notifier.reloading()
        notifier.ready()
        manager.wait_for("READY=1")
        first, second = manager.got[0].splitlines()
        assert first == "RELOADING=1"
        assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
        notifier.close()


async def test_a_status_that_stays_is_sent_once_and_is_one_line() -> None:
    """No value can add a line of its own, and the same text is not repeated."""
    with listening() as (manager, address):
        notifier = Notifier(address)
        for _ in range(3):
            notifier.status("one\nREADY=1")
        notifier.status("two")
        manager.wait_for("STATUS=two")
        assert manager.got == ["STATUS=one READY=1", "STATUS=two"]
        notifier.close()


async def test_a_manager_that_is_away_gets_the_state_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing fails without a listener; what it missed is sent when it is there."""
    monkeypatch.setattr("litestream.daemon.notify.STATUS_INTERVAL", 0.05)
    with short_folder() as folder, ThreadPoolExecutor(1) as lane:
        notifier = Notifier(str(folder / "notify"))
        task = asyncio.create_task(notifier.run(Server([]), lane))
        await asyncio.sleep(0.2)
        manager = Manager(str(folder / "notify"))
        try:
            await asyncio.sleep(0.3)
            assert manager.got.count("READY=1") == 1
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            notifier.close()
            manager.close()


def test_without_a_manager_nothing_is_done(caplog: pytest.LogCaptureFixture) -> None:
    """No variable: no socket. An address that is none of ours is a warning."""
    assert not Notifier.from_environ({}).enabled
    assert not Notifier.from_environ({"NOTIFY_SOCKET": "vsock:2:1234"}).enabled
    assert "NOTIFY_SOCKET is neither" in caplog.text
