"""Stopping signals."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from litestream.daemon.signals import StopSignals


def script(body: str, *numbers: int) -> subprocess.CompletedProcess[str]:
    """Run a program that sends itself signals."""
    code = (
        "import os, signal, sys, time\n"
        "from litestream.daemon.signals import StopSignals\n"
        f"def send(): [os.kill(os.getpid(), n) for n in {[int(n) for n in numbers]}]\n" + body
    )
    return subprocess.run([sys.executable, "-u", "-c", code], capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_calls_back_once(number: int) -> None:
    """Any of the three asks for an orderly end, and the program goes on until it has ended in order."""
    body = "with StopSignals(lambda: print('stop')) as s:\n    send(); time.sleep(0.01); print(s.received)\n"
    done = script(body, number)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"stop\n{int(number)}\n", "")


def test_the_second_signal_ends_the_process_even_in_a_busy_loop() -> None:
    """No event loop has to turn for it."""
    done = script("with StopSignals():\n    send()\n    while True: pass\n", signal.SIGTERM, signal.SIGINT)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_signal_during_the_end_does_not_change_who_handles_it() -> None:
    """Once asked to stop, the process stays under the same handlers until it is gone."""
    done = script("with StopSignals(): send()\nsignal.raise_signal(signal.SIGTERM)\n", signal.SIGTERM)
    assert (done.returncode, done.stderr) == (1, "")


def test_nohup_is_respected() -> None:
    """SIGHUP that was ignored before stays ignored."""
    body = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nwith StopSignals() as s:\n    send(); print(s.received)\n"
    assert script(body, signal.SIGHUP).stdout == "0\n"


def test_handlers_are_put_back() -> None:
    """Where no signal came, everything is as it was."""
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_signal_before_the_callback_is_set_is_not_lost() -> None:
    """It may come while the program is still starting."""
    called: list[int] = []
    signals = StopSignals()
    signals._handle(signal.SIGTERM, None)
    signals.on_stop(lambda: called.append(1))
    assert called == [1]


def test_a_signal_that_came_to_earlier_handlers_counts() -> None:
    """Who takes over from the handlers of the start knows what they have seen, and is next to be asked."""
    body = (
        "StopSignals().install()\nsend()\nwith StopSignals() as s:\n"
        "    print(s.received); s.on_stop(lambda: print('stop'))\n    send()\n"
    )
    done = script(body, signal.SIGTERM)
    assert (done.returncode, done.stdout, done.stderr) == (1, f"{int(signal.SIGTERM)}\nstop\n", "")


async def test_a_waiting_event_loop_is_woken() -> None:
    """The callback runs on the loop, at once, although nothing else happens there."""
    event = asyncio.Event()
    with StopSignals() as signals:
        signals.on_stop_in(asyncio.get_running_loop(), event.set)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            await event.wait()
        signals.received = 0  # so that the handlers are put back


def test_a_closed_event_loop_is_left_alone() -> None:
    """A signal after the end of the work is no error."""
    loop = asyncio.new_event_loop()
    loop.close()
    signals = StopSignals()
    signals.on_stop_in(loop, lambda: None)
    signals._handle(signal.SIGTERM, None)
    assert signals.received == signal.SIGTERM


def test_a_hangup_waits_until_it_is_known_what_it_means() -> None:
    """One that comes while the program is loaded is a reload where there is a file, and the end elsewhere."""
    loop = asyncio.new_event_loop()
    early, called = StopSignals(hold_hangups=True), list[str]()
    early._handle(signal.SIGHUP, None)
    assert early.received == 0
    early.reload_in(loop, lambda: called.append("reload"))
    early._handle(signal.SIGHUP, None)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert called == ["reload", "reload"]
    assert early.received == 0
    other = StopSignals(lambda: called.append("stop"), hold_hangups=True)
    other._handle(signal.SIGHUP, None)
    other.stop_on_hangup()
    assert (called[2:], other.received) == (["stop"], signal.SIGHUP)


def test_a_hangup_after_the_end_began_is_nothing() -> None:
    """Whoever reloads a replicator that is shutting down does not cut its last sync short."""
    body = (
        "StopSignals(hold_hangups=True).install()\n"
        "with StopSignals(hold_hangups=True) as s:\n    send(); time.sleep(0.01); print(s.received)\n"
    )
    done = script(body, signal.SIGTERM, signal.SIGHUP, signal.SIGHUP)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{int(signal.SIGTERM)}\n", "")
