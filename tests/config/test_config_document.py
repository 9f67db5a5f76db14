"""YAML: what is refused, and how fast."""

from __future__ import annotations

import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from litestream.config import loads
from litestream.config.document import DocumentError, Mapping, Node, Sequence, parse
from litestream.errors import ConfigError


def plain(node: Node | None) -> object:
    """A tree as ordinary values."""
    if isinstance(node, Mapping):
        return {name: plain(value) for name, (_, value) in node.entries.items()}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return None if node is None or node.null else node.text


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loads(text, name="f", expand_env=False)
    return str(caught.value)


def test_values_keep_their_text() -> None:
    """Numbers, dates and words stay as written; only what is plainly null is null."""
    document = parse("a: 0123\nb: 1_000\nc: ~\nd: '~'\ne:\nf: !!str null\ng: 2001-01-01\nh: 'no'\n")
    assert plain(document.root) == {
        "a": "0123", "b": "1_000", "c": None, "d": "~", "e": None, "f": "null", "g": "2001-01-01", "h": "no",
    }  # fmt: skip


def test_merge_keys() -> None:
    """`<<` adds what is not given; of several sources the first counts."""
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  <<: [*a, *b]\n  x: 0\n"
    root = plain(parse(text).root)
    assert isinstance(root, dict)
    assert root["c"] == {"x": "0", "y": "1", "z": "2"}


def test_duplicate_keys_are_errors() -> None:
    """A key given twice names both lines, wherever it stands."""
    assert refused("addr: ':1'\nlogging:\n  level: info\n  level: debug\naddr: ':2'\n") == (
        'f:4: duplicate key "level" (first on line 3)\nf:5: duplicate key "addr" (first on line 1)'
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("addr: 'x", "f:1: found unexpected end of stream"),
        ("a: b: c", "f:1: mapping values are not allowed in this context"),
        ("dbs:\n\t- path: x", "f:2: found character that cannot start any token"),
        ("---\naddr: ':1'\n---\naddr: ':2'", "f:3: a second document"),
        ("addr: *gone", "f:1: an alias (*) without its anchor"),
        ("dbs: &d [*d]", "f:1: an alias (*) without its anchor"),
        ("addr: !x ':1'", "f:1: YAML tags are not supported"),
        ("addr: !!python/object/apply:os.system ['true']", "f:1: YAML tags are not supported"),
        ("? [a]\n: 1", "f:1: a key must be a word"),
        ("<<: 1", "f:1: << takes an alias of a mapping"),
        ("- a", "f:1: must be a section of keys with values"),
        ("text", "f:1: must be a section of keys with values"),
        ("addr: \x07", "f:1: a character that YAML does not allow (U+0007)"),
        ("logging: [a]", "f:1: logging: must be a section of keys with values"),
        ("dbs: {a: 1}", 'f:1: dbs: must be a list: each entry begins with "- "'),
        ("dbs: [a]", "f:1: dbs[0]: must be a section of keys with values"),
        ("addr: [a]", "f:1: addr: must be a single value (text)"),
    ],
)
def test_syntax_and_shape(text: str, why: str) -> None:
    """Each is one line with the place, and nothing is executed."""
    assert why in refused(text)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "~", "dbs:\n"])
def test_empty_files_are_empty_configurations(text: str) -> None:
    """No content is no database, and no error."""
    assert loads(text).databases == ()


def bombs() -> dict[str, str]:
    levels = "".join(f"l{n}: &l{n} [{','.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12))
    databases = "\n".join(["dbs:"] + ["  - &d\n    path: /x\n    replicas: *r"] + ["  - *d"] * 3000)
    replicas = "r: &r\n" + "  - &one {path: /y}\n" + "  - *one\n" * 3000
    merges = "m: &m {" + ",".join(f"k{n}: 1" for n in range(2000)) + "}\nn: {<<: [" + ",".join(["*m"] * 2000) + "]}"
    return {
        "laughs": f"l0: &l0 [a,a,a]\n{levels}dbs: *l11\n",
        "laughs in known keys": replicas + databases,
        "merges": merges,
        "deep flow": "dbs: " + "[" * 1_000_000,
        "deep block": "- " * 500_000,
        "wide": "dbs: [" + "a," * 400_000 + "]",
    }


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused_at_once(name: str) -> None:
    """Documents that multiply or nest without end are an error in less than a second of work, with bounded text."""
    text = bombs()[name]
    start = time.process_time()
    message = refused(text)
    spent = time.process_time() - start
    assert len(message) < 20_000
    assert spent < (5 if name == "wide" else 1)  # "wide" is 800 KB of honest work, not a multiplication


TEXT = st.text(st.characters(codec="utf-8"))
KEYS = st.text("ab c:#-'", max_size=4)


@given(st.recursive(TEXT, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20))
def test_agrees_with_pyyaml(value: object) -> None:
    """For every tree of text, lists and mappings the result is what PyYAML itself reads."""
    import yaml

    text = yaml.safe_dump(value, allow_unicode=True)
    try:
        tree = plain(parse(text).root)
    except DocumentError:
        assume(False)  # a character that YAML does not allow
    assert tree == yaml.load(text, Loader=yaml.BaseLoader)


@given(st.text(max_size=60))
def test_any_text_is_a_configuration_or_an_error(text: str) -> None:
    """Whatever the text, the outcome is a configuration or a ConfigError whose every line is printable."""
    try:
        loads(text, environ={})
    except ConfigError as error:
        lines = str(error).split("\n")
        assert all(line.startswith("litestream.yml:") and line.isprintable() for line in lines)
