"""The JSON schema and the documentation are those of the code, and agree with the loader."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from litestream.config import loads
from litestream.config.key import Fate
from litestream.config.known_keys import SECTIONS, TOP
from litestream.config.schema import DOC_FILE, SCHEMA_FILE, json_schema, main, schema_text, with_tables
from litestream.config.store_keys import BY_NAME
from litestream.errors import ConfigError

ROOT = Path(__file__).parents[2]
DOC = (ROOT / DOC_FILE).read_text(encoding="utf-8")
PAGES = DOC + (ROOT / "docs/replicas.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGES, re.DOTALL)
REGENERATE = "run: uv run python -m litestream.config.schema"


def complaints(value: Any, schema: dict[str, Any], root: dict[str, Any], place: str = "") -> list[str]:  # noqa: ANN401
    """A validator of the part of JSON Schema that we use; an unknown keyword is an error."""
    found: list[str] = []
    for word, arg in schema.items():
        if word == "$ref":
            found += complaints(value, root["$defs"][arg.removeprefix("#/$defs/")], root, place)
        elif word == "type":
            if not any(_is(value, name) for name in ([arg] if isinstance(arg, str) else arg)):
                found.append(f"{place}: no {arg}")
        elif word == "properties" and isinstance(value, dict):
            for name in value.keys() & arg.keys():
                found += complaints(value[name], arg[name], root, f"{place}.{name}")
        elif word == "additionalProperties" and isinstance(value, dict):
            found += [f"{place}.{name}: unknown" for name in value.keys() - schema["properties"].keys()]
        elif word == "required" and isinstance(value, dict):
            found += [f"{place}.{name}: missing" for name in arg if name not in value]
        elif word == "items" and isinstance(value, list):
            for number, item in enumerate(value):
                found += complaints(item, arg, root, f"{place}[{number}]")
        elif word == "anyOf":
            if all(complaints(value, option, root, place) for option in arg):
                found.append(f"{place}: none of the alternatives")
        elif word == "not":
            if not complaints(value, arg, root, place):
                found.append(f"{place}: not allowed")
        elif word == "enum":
            if value not in arg:
                found.append(f"{place}: not in {arg}")
        elif word == "pattern":
            if isinstance(value, str) and not re.search(arg, value):
                found.append(f"{place}: pattern")
        elif word in {"minimum", "maximum"}:
            if isinstance(value, int) and (value < arg if word == "minimum" else value > arg):
                found.append(f"{place}: {word}")
        else:
            assert word in {
                "$schema", "$defs", "title", "description", "deprecated",
                "properties", "additionalProperties", "required", "items",
            }, word  # fmt: skip
    return found


def _is(value: object, name: str) -> bool:
    types: dict[str, type | tuple[type, ...]] = {
        "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int,
    }  # fmt: skip
    return isinstance(value, types[name]) and not (name == "integer" and isinstance(value, bool))


def schema_accepts(text: str) -> list[str]:
    import yaml

    schema = json_schema()
    return complaints(yaml.safe_load(text), schema, schema)


def test_the_schema_is_current() -> None:
    """docs/litestream.schema.json is what the code generates."""
    assert (ROOT / SCHEMA_FILE).read_text(encoding="utf-8") == schema_text(), REGENERATE


def test_the_tables_are_current() -> None:
    """docs/config.md has the table of known keys, complete and unchanged."""
    assert with_tables(DOC) == DOC, REGENERATE
    for keys in SECTIONS.values():
        for key in keys.values():
            assert f"| `{key.name}` | {key.fate.value} |" in DOC


def test_regenerating_repairs_both(tmp_path: Path) -> None:
    """The documented command writes both files."""
    (tmp_path / "docs").mkdir()
    (tmp_path / DOC_FILE).write_text(re.sub(r"\| `addr`.*\n", "", DOC), encoding="utf-8")
    main(tmp_path)
    assert (tmp_path / DOC_FILE).read_text(encoding="utf-8") == DOC
    assert json.loads((tmp_path / SCHEMA_FILE).read_text(encoding="utf-8")) == json_schema()


def test_the_examples_show_every_key_that_works() -> None:
    """The page's examples, which the next test reads, use each key that works at least once in its section."""
    import yaml

    used: dict[str, set[str]] = {section: set() for section in SECTIONS}

    def collect(value: dict[str, Any], section: str) -> None:
        used[section] |= value.keys()
        for name, inner in value.items():
            below = SECTIONS[section][name].section
            for item in (inner if isinstance(inner, list) else [inner]) if below else []:
                if isinstance(item, dict):
                    collect(item, below)

    for text in EXAMPLES:
        collect(yaml.safe_load(text), TOP)
    works = {(s, k.name) for s, keys in SECTIONS.items() for k in keys.values() if k.fate is Fate.WORKS}
    works -= {(TOP, name) for name in BY_NAME}  # the same keys as in a replica
    assert works - {(section, name) for section, names in used.items() for name in names} == set()


ENVIRON = {
    "APP_DATA": "/data",
    "BACKUP_DIR": "/backup",
    "CUSTOMER_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    "AGE_IDENTITY": "AGE-SECRET-KEY-1UU59HTWUXZVRAHT8WJFVW66DHFTT3FXGXDXSZX57AKAER5ZZCMDSJZY8W6",
    "ACCOUNT_KEY": "c2VjcmV0",
    "SAS_TOKEN": "sv=2021-12-02&sp=rwdl&sig=secret",
    "HOST_KEY": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEfAeNc7DDfjnzbP7Ne4F0DA6PG5mjt4YPJ0Vu9h5vKn",
    "NATS_SEED": "SUANQDPB2RUOE4ETUA26CNX7FUKE5ZZKFCQIIW63OX225F2CO7UEXTM7ZY",
    "NATS_NKEY": "UBH4OFPU2FPRTRSVYUCVGYTDMJKPXPKW7OCKVAAAGT2J3IZAAAAAAAAA",
}
"""What the examples take from the environment; anything else is the word secret."""


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_are_right(text: str, tmp_path: Path) -> None:
    """Every example of the page is accepted by the loader without a warning, and by the schema."""
    for name in re.findall(r"\$\{KEYS\}/([\w.]+)", text):
        (tmp_path / name).write_text(ENVIRON["CUSTOMER_KEY"])
    names = re.findall(r"\$\{(\w+)\}", text)
    config = loads(text, environ={**dict.fromkeys(names, "secret"), **ENVIRON, "KEYS": str(tmp_path)})
    assert config.warnings == ()
    assert schema_accepts(text) == []


GOOD = "dbs: [{path: /a, %s replica: {path: /b, %s}}]\n%s"


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        (GOOD % ("", "", ""), True),
        (GOOD % ("", "sync-interval: 1h30m", ""), True),
        (GOOD % ("", "sync-interval: 0", ""), True),
        (GOOD % ("", "sync-interval: 5", ""), False),
        (GOOD % ("", "sync-interval: 1day", ""), False),
        (GOOD % ("", "sync-interval: -1s", ""), False),
        (GOOD % ("", "sync-intervall: 1s", ""), False),
        (GOOD % ("", "type: file", ""), True),
        (GOOD % ("", "type: s3, bucket: bucket", ""), True),
        (GOOD % ("", "type: s4, bucket: bucket", ""), False),
        (GOOD % ("", "type: s3, bucket: bucket, part-size: 16 MiB", ""), True),
        (GOOD % ("", "type: s3, bucket: bucket, part-size: large", ""), False),
        (GOOD % ("", "type: s3, bucket: bucket, concurrency: 0", ""), False),
        (GOOD % ("", "type: s3, bucket: bucket, skip-verify: maybe", ""), False),
        (GOOD % ("", "type: s3, bucket: bucket, timeout: 0", ""), False),
        (GOOD % ("", "type: s3, bucket: bucket, max-requests: {per-month: 9}", ""), True),
        (GOOD % ("", "type: s3, bucket: bucket, max-requests: {per-month: 0}", ""), False),
        (GOOD % ("", "type: s3, bucket: bucket, max-requests: {per-day: 9}", ""), False),
        (GOOD % ("", "age: {recipient: [x]}", ""), False),
        (GOOD % ("", "age: {recipients: x}", ""), False),
        (GOOD % ("", "", "region: r"), True),
        (GOOD % ("min-checkpoint-page-count: 0,", "", ""), False),
        (GOOD % ("max-checkpoint-page-count: 0,", "", ""), True),
        (GOOD % ("monitor-interval: 0,", "", ""), False),
        (GOOD % ("recursive: false,", "", ""), True),
        (GOOD % ("recursive: true,", "", ""), True),
        (GOOD % ("watch: true,", "", ""), False),
        (GOOD % ("watch: false,", "", ""), True),
        (GOOD % ("meta-dir: /m,", "", ""), False),
        (GOOD % ("dir: x,", "", ""), False),
        ("dbs: [{dir: x, pattern: '*', watch: true, recursive: true, meta-dir: /m, replica: {path: /b}}]", True),
        ("dbs: [{dir: x, replica: {path: /b}}]", False),
        ("dbs: [{dir: x, pattern: 'a/*', replica: {path: /b}}]", False),
        (GOOD % ("", "", "exec: app"), True),
        (GOOD % ("", "", "retention: 24h"), True),
        (GOOD % ("", "", "retention: {enabled: false}"), True),
        (GOOD % ("", "", "retention: {enable: false}"), False),
        (GOOD % ("", "", "logging: {level: debug, type: json, stderr: true}"), True),
        (GOOD % ("", "", "logging: {level: loud}"), False),
        (GOOD % ("", "", "logging: {type: pretty}"), True),
        (GOOD % ("", "", "socket: {enabled: false}"), True),
        (GOOD % ("", "", "socket: {enabled: true, path: /run/l.sock, permissions: '0660'}"), True),
        (GOOD % ("", "", "socket: {permissions: 'rw'}"), False),
        (GOOD % ("", "", "socket: {enable: true}"), False),
        (GOOD % ("", "", "heartbeat-url: https://example.com/ping\nheartbeat-interval: 1m"), True),
        (GOOD % ("", "", "levels: [{interval: 5m}]"), True),
        (GOOD % ("", "", "snapshot:"), True),
        (GOOD % ("", "", "addr: 9090"), False),
        ("dbs:", True),
        ("dbs: [{replica: {path: /b}}]", False),
        ("dbs: {path: /a}", False),
    ],
)
def test_schema_and_loader_agree(text: str, fine: bool) -> None:
    """What an editor marks is what the loader refuses."""
    try:
        loads(text)
        loaded = True
    except ConfigError:
        loaded = False
    assert (loaded, schema_accepts(text) == []) == (fine, fine)


@pytest.mark.parametrize(
    "replica",
    ["path: /b, region: r", "type: s3", "type: sftp, host: h", "path: /b, age: {}", "path: /b, age: {recipients: [x]}"],
)
def test_the_loader_knows_more(replica: str) -> None:
    """What only the type decides, an editor does not mark; the loader refuses it."""
    text = f"dbs: [{{path: /a, replica: {{{replica}}}}}]"
    assert schema_accepts(text) == []
    with pytest.raises(ConfigError):
        loads(text)
