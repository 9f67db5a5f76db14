"""A proxy that writes down which HTTP requests pass through it: an independent count of what a store was asked."""

from __future__ import annotations

import asyncio
import re

from helpers.tcpproxy import Direction, TCPProxy

_REQUEST = re.compile(rb"(GET|PUT|POST|HEAD|DELETE) (/\S*) HTTP/1\.1\r\n")


class RequestLog(TCPProxy):
    """Passes everything on.

    Attributes:
        requests: method and path of each request, in order.
    """

    def __init__(self, upstream_port: int) -> None:
        super().__init__(upstream_port)
        self.requests: list[tuple[str, str]] = []

    async def _pump(self, side: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept = b""
        while data := await reader.read(64 << 10):
            if side == "client":
                kept += data
                end = 0
                for match in _REQUEST.finditer(kept):
                    self.requests.append((match[1].decode(), match[2].decode()))
                    end = match.end()
                kept = kept[max(end, len(kept) - 4096) :]
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
