"""Go-style flags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestream.cli.flags import Flag, FlagSet, HelpRequestedError, closest
from litestream.errors import ConfigError

FLAGS = FlagSet(
    verb="try",
    usage="try [flags] DB",
    about="Try.",
    flags=(
        Flag("config", "The file.", "PATH", default="/etc/x"),
        Flag("json", "As JSON."),
        Flag("check", "How.", "KIND", choices=("none", "quick")),
        Flag("parallelism", "How many.", "N", number=True),
    ),
    max_args=2,
    examples="litestream try a.db",
)


@pytest.mark.parametrize("form", [["-config", "x"], ["--config", "x"], ["-config=x"], ["--config=x"]])
@pytest.mark.parametrize("before", [True, False])
def test_all_four_forms_stand_before_or_after_arguments(form: list[str], before: bool) -> None:
    """A flag means the same with one or two dashes, with = or a space, on either side of the arguments."""
    parsed = FLAGS.parse([*form, "a.db"] if before else ["a.db", *form])
    assert (parsed.text("config"), list(parsed.args)) == ("x", ["a.db"])


@pytest.mark.parametrize(
    ("text", "value"), [("-json", True), ("-json=true", True), ("--json=0", False), ("-json=F", False)]
)
def test_a_switch_takes_its_value_only_with_an_equals_sign(text: str, value: bool) -> None:
    """A switch does not swallow the argument behind it."""
    parsed = FLAGS.parse([text, "a.db"])
    assert parsed.switch("json") is value
    assert list(parsed.args) == ["a.db"]


def test_two_dashes_end_the_flags() -> None:
    """Behind `--` everything is an argument, also what looks like a flag."""
    assert list(FLAGS.parse(["--", "-json", "-x"]).args) == ["-json", "-x"]


def test_the_last_one_wins_and_a_single_dash_is_an_argument() -> None:
    """As in Go: a repeated flag has its last value, `-` alone is no flag."""
    parsed = FLAGS.parse(["-config", "a", "-", "-config", "b"])
    assert (parsed.text("config"), list(parsed.args)) == ("b", ["-"])


def test_a_value_may_look_like_a_flag() -> None:
    """What follows a flag that needs a value is its value."""
    assert FLAGS.parse(["-config", "-json"]).text("config") == "-json"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-confg", "x"], "flag provided but not defined: -confg (did you mean -config?)"),
        (["--zzz=1"], "flag provided but not defined: --zzz (see: litestream try -h)"),
        (["-config"], "flag needs an argument: -config (see: litestream try -h)"),
        (["-config", ""], "the value of flag -config is empty: leave the flag out, or give it one"),
        (["-check="], 'invalid value "" for flag -check: use one of none, quick'),
        (["-json=maybe"], 'invalid boolean value "maybe" for -json: use true or false'),
        (["-check", "all"], 'invalid value "all" for flag -check: use one of none, quick'),
        (["-parallelism", "0"], 'invalid value "0" for flag -parallelism: a whole number from 1 on is needed'),
        (["-parallelism", "٣"], 'invalid value "٣" for flag -parallelism: a whole number from 1 on is needed'),
        (["a", ""], "argument 2 is empty (see: litestream try -h)"),
        (["a", "b", "c"], 'too many arguments: "c" is one too many (see: litestream try -h)'),
    ],
)
def test_every_mistake_is_one_line_that_helps(argv: list[str], text: str) -> None:
    """Wrong command lines are errors that name the flag and what to do."""
    with pytest.raises(ConfigError) as caught:
        FLAGS.parse(argv)
    assert str(caught.value) == text


def test_too_few_arguments_say_which() -> None:
    """A missing argument is named."""
    flags = FlagSet(verb="x", usage="x DB", about="X.", min_args=1, max_args=1, missing="database path required")
    with pytest.raises(ConfigError, match="database path required"):
        flags.parse([])


@pytest.mark.parametrize("argv", [["-h"], ["--help"], ["-help"], ["help"], ["a.db", "-h"]])
def test_help_is_asked_for_in_every_usual_way(argv: list[str]) -> None:
    """All spellings of help are recognised."""
    with pytest.raises(HelpRequestedError):
        FLAGS.parse(argv)


def test_the_help_text_names_everything() -> None:
    """Every flag, its value and its default stand in the help text."""
    text = FLAGS.help_text()
    for part in ("Try.", "litestream try [flags] DB", "-config PATH", "Default: /etc/x", "-parallelism N", "-json\n"):
        assert part in text
    assert text.endswith("litestream try a.db\n")


def test_numbers_have_defaults() -> None:
    """A number that was not given is the caller's default."""
    assert FLAGS.parse([]).number("parallelism", 8) == 8
    assert FLAGS.parse(["-parallelism", "3"]).number("parallelism", 8) == 3


def test_nothing_close_is_no_suggestion() -> None:
    """A word like none of them gets no suggestion."""
    assert closest("qqqq", ["config", "json"]) == ""


@given(st.lists(st.text(max_size=6), max_size=6))
def test_any_command_line_parses_or_is_a_clean_error(argv: list[str]) -> None:
    """No command line whatever raises anything but the two known exceptions."""
    try:
        parsed = FLAGS.parse(argv)
    except (ConfigError, HelpRequestedError):
        return
    assert len(parsed.args) <= 2


@given(st.lists(st.sampled_from(["a", "-x", "--json", "b c"]), max_size=2))
def test_arguments_behind_two_dashes_come_through_unchanged(args: list[str]) -> None:
    """`--` protects any arguments."""
    assert list(FLAGS.parse(["--", *args]).args) == args
