"""Environment variables in the text."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestream.config import loads
from litestream.config.expand import expand
from litestream.errors import ConfigError

NAME = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name != "PID")
PLAIN = st.text(st.characters(exclude_characters="$", exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a $A b", "a 1 b"),
        ("${A}${B}", "1two"),
        ("$A/$B.db", "1/two.db"),
        ("$AB", "three"),
        pytest.param("${PID} $PID", f"{os.getpid()} {os.getpid()}", id="process"),  # not the same in each worker
        ("${MY.DOTTED}", "dot"),
        ("cost: 5 $", "cost: 5 $"),
        ("$ A $/x", "$ A $/x"),
    ],
)
def test_references(text: str, expected: str) -> None:
    """`$NAME` takes the longest name, braces end it, and a dollar sign without a name stays."""
    result = expand(text, {"A": "1", "B": "two", "AB": "three", "MY.DOTTED": "dot", "PID": "no"})
    assert (result.text, result.warnings, result.problems) == (expected, [], [])


@given(st.lists(st.tuples(PLAIN, NAME, st.text(st.characters(exclude_categories=["Cs"])))), PLAIN)
def test_expansion_replaces_exactly_the_references(parts: list[tuple[str, str, str]], rest: str) -> None:
    """Text around references is untouched, values are not expanded again, and every line knows where it came from."""
    environ = {name: value for _, name, value in parts}
    text = "".join(f"{plain}${{{name}}}" for plain, name, _ in parts) + rest
    result = expand(text, environ)
    assert result.text == "".join(plain + environ[name] for plain, name, _ in parts) + rest
    assert result.problems == []
    assert len(result.origins) == result.text.count("\n") + 1
    assert result.origins == sorted(result.origins)
    assert result.origins[0] == 1
    assert result.origins[-1] == text.count("\n") + 1


def test_unset_variables_warn_with_their_line() -> None:
    """An unset variable is empty and named in a warning; one that is set to nothing is not."""
    text = "dbs: [{path: /x/a$NOPE, replica: {path: /x/r$EMPTY}}]\n"
    config = loads(text, name="f.yml", environ={"EMPTY": ""})
    assert config.databases[0].path == "/x/a"
    assert config.warnings == ("f.yml:1: the environment variable NOPE is not set and becomes empty",)


def test_dollar_signs_that_vanish_are_reported() -> None:
    """Go's special names ($1, $$, $!) become empty as in the official program, but not silently."""
    result = expand("password: a$1b$$c", {})
    assert result.text == "password: abc"
    assert [line for line, _ in result.warnings] == [1, 1]
    assert "-no-expand-env" in result.warnings[0][1]


def test_comments_do_not_warn() -> None:
    """A reference in a comment is nobody's concern."""
    result = expand("# export $THIS and ${THAT:-x}\na: 1 # $OTHER\n", {})
    assert (result.warnings, result.problems) == ([], [])


@pytest.mark.parametrize("text", ["a: ${X:-hush}", "a: ${}", "a: ${X", "a: ${X-hush}"])
def test_what_is_no_name_is_an_error(text: str) -> None:
    """Shell defaults and unclosed braces are errors, not an empty value, and their content is not repeated."""
    with pytest.raises(ConfigError, match=r"litestream\.yml:1: a \$\{ ") as caught:
        loads(text, environ={})
    assert "hush" not in str(caught.value)


def test_switched_off() -> None:
    """Without expansion dollar signs are ordinary characters."""
    config = loads("dbs: [{path: /x/$A, replica: {path: /x/r}}]", expand_env=False, environ={"A": "1"})
    assert config.databases[0].path == "/x/$A"
    assert config.warnings == ()


def test_a_value_may_be_yaml() -> None:
    """Values of several lines are YAML like the rest, and lines in messages stay those of the file."""
    environ = {"ENTRIES": "- path: /x/a\n  replica: {path: /x/r}\n- path: /x/b\n  replica: {path: /x/s}"}
    text = "dbs:\n$ENTRIES\nadr: ':1'\n"
    with pytest.raises(ConfigError) as caught:
        loads(text, environ=environ)
    assert str(caught.value) == 'litestream.yml:3: adr: unknown key (did you mean "addr"?)'
    assert len(loads(text.replace("adr", "addr"), environ=environ).databases) == 2


def test_a_value_that_is_no_text() -> None:
    """A variable whose bytes are not UTF-8 is an error that names the variable."""
    with pytest.raises(ConfigError, match="the value of the environment variable V is not UTF-8"):
        loads("addr: $V", environ={"V": "\udcff"})
