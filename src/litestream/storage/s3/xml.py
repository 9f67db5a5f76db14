"""The XML of S3 and STS, read with the standard library and nothing that it must not contain."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as ET


def parse_xml(body: bytes) -> ET.Element | None:
    """The root element; None if it is no XML, or has a document type (entities could grow without end)."""
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        return None
    try:
        return ET.fromstring(body)  # noqa: S314 - without a document type there are no entities to expand
    except ET.ParseError:
        return None


def elements(root: ET.Element | None, tag: str) -> Iterator[ET.Element]:
    """All elements of a name, whatever their namespace."""
    if root is not None:
        yield from (element for element in root.iter() if element.tag.rpartition("}")[2] == tag)


def text_of(root: ET.Element | None, tag: str) -> str:
    """The text of the first element of a name, empty if there is none."""
    return next((element.text or "" for element in elements(root, tag)), "").strip()
