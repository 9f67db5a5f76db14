"""Reading from a JetStream stream: a consumer of the server's for one reading, asked for some messages at a time.

nats-py's own subscriptions take what comes as fast as it comes, and drop what they cannot hold.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from litestream.storage.nats.link import NATSLink

_IDLE = 60
"""Seconds after which the server forgets a consumer that nobody asks."""


class Messages:
    """What a consumer of the server's gives, some at a time and in order."""

    def __init__(self, link: NATSLink, name: str, inbox: str, queue: asyncio.Queue[Msg]) -> None:
        self._link = link
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{link.stream}.{name}"
        self._inbox = inbox
        self._queue = queue

    async def fetch(self, count: int) -> list[Msg]:
        """The next `count` messages; fewer only if there are no more."""
        request = json.dumps({"batch": count, "no_wait": True}).encode()
        await self._link.client.publish(self._subject, request, reply=self._inbox)
        found: list[Msg] = []
        while len(found) < count:
            message = await self._link.wait(self._subject, self._queue.get())
            if message.headers and "Status" in message.headers:
                break
            found.append(message)
        return found


@asynccontextmanager
async def consumer(link: NATSLink, config: dict[str, Any]) -> AsyncIterator[tuple[Messages, int]]:
    """A consumer for one reading, and how many messages wait in it. The server forgets it afterwards."""
    settings = {
        "ack_policy": "none",
        "replay_policy": "instant",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": _IDLE * 1_000_000_000,
        **config,
    }
    queue: asyncio.Queue[Msg] = asyncio.Queue()

    async def take(message: Msg) -> None:
        queue.put_nowait(message)

    inbox = link.client.new_inbox()
    body = {"stream_name": link.stream, "config": settings}
    answer = await link.api(f"CONSUMER.CREATE.{link.stream}", body)
    name = str(answer["name"])
    subscription = await link.client.subscribe(inbox, cb=take)
    try:
        yield Messages(link, name, inbox, queue), int(answer.get("num_pending") or 0)
    finally:
        with suppress(Exception):  # the connection is gone, and the consumer with it soon
            await subscription.unsubscribe()
            await link.client.publish(f"$JS.API.CONSUMER.DELETE.{link.stream}.{name}", b"", reply=inbox)
