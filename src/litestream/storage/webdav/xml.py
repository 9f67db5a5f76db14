"""What a WebDAV server says of files and directories: the multistatus answer to PROPFIND, read as it comes in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

PROPFIND = (
    b'<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop>'
    b"<D:resourcetype/><D:getcontentlength/><D:getlastmodified/></D:prop></D:propfind>"
)
"""The body of a request for what an `Entry` says."""

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or directory: the parts of its path on the server, size (-1: not told), Unix time (0: not told)."""

    parts: Parts
    directory: bool
    size: int
    modified: float


class NotDAVError(Exception):
    """The answer is no multistatus."""


async def read_entries(chunks: AsyncIterator[bytes]) -> list[Entry]:
    """All entries of an answer; those whose names are no text are left out. `NotDAVError` if it is none.

    Memory is bounded by the entries, not by the XML, of which servers spend a kilobyte on each.
    """
    # Expat bounds what entities may grow to; external ones are not fetched.
    parser: ET.XMLPullParser[ET.Element] = ET.XMLPullParser(["start", "end"])
    root: ET.Element | None = None
    found: list[Entry] = []
    try:
        async for chunk in chunks:
            parser.feed(chunk)
            for event, element in parser.read_events():  # type: ignore[misc]  # pairs, with these two events
                assert isinstance(element, ET.Element)
                root = element if root is None else root
                if event == "end" and element.tag == "{DAV:}response":
                    entry = _entry(element)
                    if entry is not None:
                        found.append(entry)
                    root.clear()
        parser.close()
    except ET.ParseError:
        raise NotDAVError from None
    if root is None or root.tag != "{DAV:}multistatus":
        raise NotDAVError
    return found


def _entry(response: ET.Element) -> Entry | None:
    parts = _parts(response.findtext("{DAV:}href", ""))
    if parts is None:
        return None
    size, modified, directory = -1, 0.0, False
    for propstat in response.iter("{DAV:}propstat"):
        if " 200" not in propstat.findtext("{DAV:}status", ""):
            continue
        directory |= propstat.find("{DAV:}prop/{DAV:}resourcetype/{DAV:}collection") is not None
        told = propstat.findtext("{DAV:}prop/{DAV:}getcontentlength", "").strip()
        if told.isascii() and told.isdigit():
            size = int(told)
        modified = _time(propstat.findtext("{DAV:}prop/{DAV:}getlastmodified", "")) or modified
    return Entry(parts, directory, size, modified)


def _parts(href: str) -> Parts | None:
    """The parts of an address or path, decoded one by one: an encoded slash stays within its part."""
    try:
        path = urlsplit(href.strip()).path if "://" in href else href.strip()
        return tuple(unquote(part, errors="strict") for part in path.split("/") if part)
    except ValueError:
        return None


def _time(text: str) -> float:
    try:
        return parsedate_to_datetime(text.strip()).timestamp()
    except (ValueError, TypeError, IndexError):
        return 0.0
