"""One connection for all who ask, whatever happens to it and to them."""

from __future__ import annotations

import asyncio

import pytest

from litestream.storage.shared_link import SharedLink, gather


class Connection:
    """Alive until it is closed."""

    def __init__(self) -> None:
        self.alive = True

    async def close(self) -> None:
        self.alive = False


class Server:
    """Makes connections when it is told to."""

    def __init__(self) -> None:
        self.made: list[Connection] = []
        self.tries = 0
        self.open = asyncio.Event()
        self.error: Exception | None = None
        self.stubborn = False

    async def connect(self) -> Connection:
        self.tries += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            if not self.stubborn:
                raise
        if self.error is not None:
            raise self.error
        self.made.append(Connection())
        return self.made[-1]


async def test_one_for_all() -> None:
    """Those who ask at the same time get the same one, and so do those who come later."""
    server = Server()
    shared = SharedLink(server.connect)
    asking = [asyncio.create_task(shared.get()) for _ in range(10)]
    await asyncio.sleep(0)
    server.open.set()
    assert {id(link) for link in await asyncio.gather(*asking)} == {id(await shared.get())}
    assert server.tries == 1
    await shared.close()
    assert not server.made[0].alive


async def test_opened_again() -> None:
    """A connection that broke, or was closed, is replaced."""
    server = Server()
    server.open.set()
    shared = SharedLink(server.connect)
    first = await shared.get()
    first.alive = False
    second = await shared.get()
    assert second.alive
    await shared.close()
    await shared.close()
    assert (await shared.get()).alive
    assert server.tries == 3


async def test_an_error_is_everybodys() -> None:
    """A try that fails is an error for all who wait for it; the next one tries again."""
    server = Server()
    server.error = OSError("no")
    shared = SharedLink(server.connect)
    asking = [asyncio.create_task(shared.get()) for _ in range(3)]
    await asyncio.sleep(0)
    server.open.set()
    assert [type(result) for result in await asyncio.gather(*asking, return_exceptions=True)] == [OSError] * 3
    server.error = None
    assert (await shared.get()).alive
    assert server.tries == 2


async def test_cancelled() -> None:
    """Whoever gives up does not take the try from the others; the last one does."""
    server = Server()
    shared = SharedLink(server.connect)
    one, other = (asyncio.create_task(shared.get()) for _ in range(2))
    await asyncio.sleep(0.01)
    one.cancel()
    await asyncio.sleep(0.01)
    assert not other.done()
    other.cancel()
    for task in (one, other):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(asyncio.all_tasks()) == 1
    server.open.set()
    assert (await shared.get()).alive
    assert (server.tries, len(server.made)) == (2, 1)


async def test_given_up_too_late() -> None:
    """A connection that comes although it was given up is closed, and never in the place of a newer one."""
    server = Server()
    server.stubborn = True
    shared = SharedLink(server.connect)
    asking = asyncio.create_task(shared.get())
    await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert [link.alive for link in server.made] == [False]
    server.open.set()
    assert await shared.get() is server.made[1]
    assert server.made[1].alive


async def test_gather_ends_all() -> None:
    """The first error ends the others before it is raised."""
    ended = []

    async def work(number: int) -> int:
        try:
            await asyncio.sleep(number)
        finally:
            ended.append(number)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await gather(work(number) for number in (0, 100, 200))
    assert sorted(ended) == [0, 100, 200]
    assert await gather([]) == []
