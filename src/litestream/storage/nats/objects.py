"""Objects in a JetStream object store, as every NATS client keeps them.

One stream `OBJ_<bucket>`. An object is a message of JSON on `$O.<bucket>.M.<name in base64>`, and its bytes are
messages on `$O.<bucket>.C.<nuid>`, where the nuid is new for each version. So an object appears, and is replaced, with
one message.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from litestream.storage.nats.consumer import consumer
from litestream.storage.nats.errors import NO_MESSAGE, ApiError, DamagedError

if TYPE_CHECKING:
    from litestream.storage.nats.link import NATSLink

CHUNK = 128 << 10
"""Bytes of a chunk, as in the official client."""
_FETCH = 2 << 20
"""Bytes of chunks that are asked for at once."""
_NAMES = 256
"""Small messages that are asked for at once."""
_DIGEST = "SHA-256="
_OURS = re.compile(r"LS[0-9a-f]{20}")
"""The nuids that we make; those of other clients are the business of other clients."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of an object.

    Attributes:
        seq: number of its message, which only this version has.
        modified: Unix seconds of that message, by the server's clock.
        chunk: bytes of each chunk but the last; 0: not known.
        deleted: it stands for an object that was deleted.
    """

    name: str
    nuid: str
    size: int
    chunks: int
    digest: bytes
    chunk: int
    modified: float
    seq: int = 0
    deleted: bool = False

    @classmethod
    def parse(cls, data: bytes, seq: int, modified: float) -> Entry | None:
        """From the message; None for what is no object of bytes: a link, or nothing that can be understood."""
        try:
            info = json.loads(data)
            options = info.get("options") or {}
            if options.get("link"):
                return None
            digest = str(info.get("digest") or "").removeprefix(_DIGEST)
            return cls(
                name=str(info["name"]),
                nuid=str(info["nuid"]),
                size=int(info.get("size") or 0),
                chunks=int(info.get("chunks") or 0),
                digest=base64.urlsafe_b64decode(digest),
                chunk=int(options.get("max_chunk_size") or 0),
                deleted=bool(info.get("deleted")),
                seq=seq,
                modified=modified,
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def new_nuid() -> str:
    """The nuid of a new version."""
    return f"LS{secrets.token_hex(10)}"


def meta_subject(bucket: str, name: str) -> str:
    """Where the object's own message is."""
    return f"$O.{bucket}.M.{base64.urlsafe_b64encode(name.encode('utf-8', 'surrogateescape')).decode()}"


def chunk_subject(bucket: str, nuid: str) -> str:
    """Where the bytes of one version are."""
    return f"$O.{bucket}.C.{nuid}"


def meta_message(bucket: str, entry: Entry) -> bytes:
    """The object's own message."""
    info = {
        "name": entry.name,
        "options": {"max_chunk_size": entry.chunk},
        "bucket": bucket,
        "nuid": entry.nuid,
        "size": entry.size,
        "mtime": datetime.fromtimestamp(entry.modified, UTC).isoformat().replace("+00:00", "Z"),
        "chunks": entry.chunks,
        "digest": _DIGEST + base64.urlsafe_b64encode(entry.digest).decode(),
    }
    return json.dumps(info).encode()


async def last_message(link: NATSLink, subject: str) -> tuple[bytes, int, float] | None:
    """(data, number, Unix time) of the last message on a subject, from the leader: what was written is seen."""
    try:
        answer = await link.api(f"STREAM.MSG.GET.{link.stream}", {"last_by_subj": subject})
    except ApiError as error:
        if error.code == NO_MESSAGE:
            return None
        raise
    message = answer["message"]
    return base64.b64decode(message.get("data") or ""), int(message["seq"]), _time(message["time"])


async def find(link: NATSLink, bucket: str, name: str) -> tuple[Entry | None, int]:
    """The object, if there is one, and the number of the last message under its name (0: none)."""
    message = await last_message(link, meta_subject(bucket, name))
    if message is None:
        return None, 0
    entry = Entry.parse(*message)
    return None if entry is None or entry.deleted else entry, message[1]


async def entries(link: NATSLink, bucket: str) -> list[Entry]:
    """All objects of the bucket."""
    config = {"deliver_policy": "last_per_subject", "filter_subject": f"$O.{bucket}.M.>"}
    found = []
    async with consumer(link, config) as (messages, count):
        while count > 0:
            batch = await messages.fetch(min(_NAMES, count))
            for message in batch:
                entry = Entry.parse(
                    message.data, message.metadata.sequence.stream, message.metadata.timestamp.timestamp()
                )
                if entry is not None and not entry.deleted:
                    found.append(entry)
            count = batch[-1].metadata.num_pending if batch else -1
    if count < 0:
        raise DamagedError("the listing broke off")
    return found


async def abandoned(link: NATSLink, bucket: str, before: float) -> list[str]:
    """Subjects with chunks of ours that no object has, the last of them older than `before` (Unix time)."""
    everything = f"$O.{bucket}.C.>"
    subjects: list[str] = []
    while True:
        body = {"subjects_filter": everything, "offset": len(subjects)}
        page = (await link.api(f"STREAM.INFO.{link.stream}", body))["state"].get("subjects") or {}
        subjects += page
        if not page:
            break
    # The objects after the chunks: what is made an object meanwhile is among them.
    used = {entry.nuid for entry in await entries(link, bucket)}
    found = []
    for subject in subjects:
        nuid = subject.rpartition(".")[2]
        if _OURS.fullmatch(nuid) and nuid not in used:
            last = await last_message(link, subject)
            if last is not None and last[2] < before:
                found.append(subject)
    return found


async def chunks(link: NATSLink, bucket: str, entry: Entry, start: int) -> AsyncGenerator[bytes, None]:
    """The object's bytes from `start` on. `DamagedError` if some are missing."""
    subject = chunk_subject(bucket, entry.nuid)
    if entry.chunks == 1 and entry.size <= CHUNK:
        only = await last_message(link, subject)
        if only is None:
            raise DamagedError("its bytes are missing")
        yield only[0][start:]
        return
    config: dict[str, Any] = {"deliver_policy": "all", "filter_subject": subject}
    if start and start >= entry.chunk:
        first, start = await _chunk_at(link, config, start)
        config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": first}
    largest = max(entry.chunk, entry.size // max(1, entry.chunks), 1)
    async with consumer(link, config) as (messages, count):
        while count > 0:
            batch = await messages.fetch(max(1, min(count, _FETCH // largest)))
            for message in batch:
                data = message.data
                yield data[start:] if start else data
                start = max(0, start - len(data))
            count = batch[-1].metadata.num_pending if batch else -1
    if count < 0:
        raise DamagedError("its bytes are missing")


async def _chunk_at(link: NATSLink, config: dict[str, Any], start: int) -> tuple[int, int]:
    """The number of the chunk that holds the byte `start`, and its place in it. Only sizes are sent."""
    async with consumer(link, {**config, "headers_only": True}) as (messages, count):
        while count > 0:
            batch = await messages.fetch(min(count, _NAMES))
            for message in batch:
                size = int((message.headers or {}).get("Nats-Msg-Size", "0"))
                if start < size:
                    return message.metadata.sequence.stream, start
                start -= size
            count = batch[-1].metadata.num_pending if batch else 0
    raise DamagedError("its bytes are missing")


def _time(text: str) -> float:
    """Unix seconds of RFC 3339 with any number of digits behind the point."""
    whole, _, rest = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{rest or 0}")
