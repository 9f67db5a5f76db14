"""The JSON schema of litestream.yml and the key tables of docs/config.md, from the models and `known_keys`.

Regenerate both, in the project's directory, with::

    uv run python -m litestream.config.schema
"""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from litestream.config.key import Fate, Key
from litestream.config.known_keys import (
    DATABASE,
    LOGGING,
    REPLICA,
    RETENTION,
    SECTIONS,
    SNAPSHOT,
    SOCKET,
    TOP,
    UPSTREAM,
    VALIDATION,
)
from litestream.config.model import JsonSchema, Model, SecretStr
from litestream.config.models import (
    Config,
    DatabaseConfig,
    DirectoryConfig,
    LoggingConfig,
    ReplicaConfig,
    ReplicaDefaults,
    SnapshotConfig,
    SocketConfig,
    ValidationConfig,
)
from litestream.config.store_keys import AGE, BY_NAME, MAX_REQUESTS, NETWORK, STORE_KEYS
from litestream.config.store_settings import AgeConfig, MaxRequests
from litestream.config.upstream import UpstreamConfig

SCHEMA_FILE = "docs/litestream.schema.json"
DOC_FILE = "docs/config.md"
BEGIN, END = "<!-- keys: begin -->", "<!-- keys: end -->"
NOT_IN_FILE = {"source", "warnings", "defaults", "directories"}
"""Fields of `Config` that no file sets."""

_NOT: dict[str, Any] = {"not": {}}
_WITH_PATH = {
    "required": ["path"],
    "properties": {"dir": _NOT, "meta-dir": _NOT, "watch": {"enum": [False, "false"]}},
}
_WITH_DIR = {"required": ["dir", "pattern"], "properties": {"path": _NOT, "upstream": _NOT}}
"""The two kinds of entries of `dbs:`."""

_MODELS: dict[str, tuple[type[Model], ...]] = {
    TOP: (Config, ReplicaDefaults),
    LOGGING: (LoggingConfig,),
    SNAPSHOT: (SnapshotConfig,),
    SOCKET: (SocketConfig,),
    VALIDATION: (ValidationConfig,),
    DATABASE: (DatabaseConfig, DirectoryConfig),
    REPLICA: (ReplicaConfig,),
    UPSTREAM: (UpstreamConfig,),
    AGE: (AgeConfig,),
    MAX_REQUESTS: (MaxRequests,),
}


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the file: what works with its type, what is accepted marked, what is refused refused."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "litestream.yml",
        **_section(TOP),
        "$defs": {_ref_name(section): _section(section) for section in SECTIONS if section != TOP},
    }


def _section(section: str) -> dict[str, Any]:
    fields = _fields(section)
    properties = {key.name: _property(key, section, fields) for key in SECTIONS[section].values()}
    schema: dict[str, Any] = {"type": ["object", "null"], "properties": properties, "additionalProperties": False}
    if section in {TOP, DATABASE, REPLICA}:
        schema["type"] = "object"
    if section == DATABASE:
        schema["anyOf"] = [_WITH_PATH, _WITH_DIR]
    return schema


def _fields(section: str) -> dict[str, Any]:
    """Property schemas of the models, by key."""
    fields: dict[str, Any] = {}
    for model in _MODELS.get(section, ()):
        fields |= {key: _of_type(model.type_of(name)) for name, key in model.KEYS.items()}
    return {name: value for name, value in fields.items() if name not in NOT_IN_FILE}


def _property(key: Key, section: str, fields: dict[str, Any]) -> dict[str, Any]:
    if key.fate is Fate.REFUSED:
        allowed: dict[str, Any] = {"enum": [False, "false"]} if key.off else {"not": {}}
        return {"description": f"Refused: {key.note}.", **allowed}
    if key.fate is Fate.WARNING:
        return {"description": f"Accepted, {key.note}.", "deprecated": True}
    description = {"description": f"{key.note[0].upper()}{key.note[1:]}.".replace("`", "")}
    if key.section:
        inside: dict[str, Any] = {"$ref": f"#/$defs/{_ref_name(key.section)}"}
        if key.name in {"dbs", "replicas"}:
            inside = {"type": ["array", "null"], "items": inside}
        if key.section == RETENTION:
            inside = {"anyOf": [inside, *_plain(fields["retention"])]}
        return {**description, **inside}
    alternatives = _plain(fields[key.name]) if key.name in fields else [{"type": "boolean"}]
    return {**description, **(alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives})}


_TYPES = {str: "string", SecretStr: "string", bool: "boolean", int: "integer", float: "number"}


def _of_type(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a type, or what typing has for it
    """The schema of one value; null is a default that no file spells."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        said = [item.schema for item in kind.__metadata__ if isinstance(item, JsonSchema)]
        return said[-1] if said else _of_type(args[0])
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of_type(arg) for arg in args if arg is not types.NoneType]}
    if origin is tuple:
        return {"items": _of_type(args[0]), "type": "array"}
    if origin is Literal:
        return {"enum": list(args), "type": "string"}
    return {} if issubclass(kind, Model) else {"type": _TYPES[kind]}


def _plain(field: dict[str, Any]) -> list[dict[str, Any]]:
    """The schema of one value, as alternatives."""
    options = field.get("anyOf", [field])
    return [inner for option in options for inner in option.get("anyOf", [option])]


def _ref_name(section: str) -> str:
    return re.sub(r"[^a-z]+", "-", section).strip("-")


def key_tables() -> str:
    """The tables of docs/config.md: one per section, a row per key."""
    parts = []
    for section, keys in SECTIONS.items():
        title = section if section == TOP else f"`{section}`"
        rows = [_row(key) for key in keys.values() if section != TOP or key.name not in BY_NAME]
        parts.append("\n".join([f"### {title}", "", *_HEAD, *rows]))
        if section == TOP:
            parts.append(_SHARED)
    return "\n\n".join(parts)


_HEAD = ("| key | here | official | of | |", "|---|---|---|---|---|")
_SHARED = f"Besides, as defaults: every key of `{REPLICA}` from `{STORE_KEYS[0].name}` on."


def _row(key: Key) -> str:
    types = "services" if key.types == NETWORK else ", ".join(key.types)
    return f"| `{key.name}` | {key.fate.value} | {key.versions or 'new'} | {types} | {key.note} |"


def with_tables(document: str) -> str:
    """docs/config.md with the tables between its two marks replaced."""
    head, _, rest = document.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{key_tables()}\n\n{END}{tail}"


def schema_text() -> str:
    """The content of docs/litestream.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def main(root: Path) -> None:
    """Write both files below `root`."""
    (root / SCHEMA_FILE).write_text(schema_text(), encoding="utf-8")
    document = root / DOC_FILE
    document.write_text(with_tables(document.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
