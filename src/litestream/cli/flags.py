"""Command-line flags as the official program has them: Go style, one or two dashes.

`-name value`, `-name=value`, `--name value` and `--name=value` are the same; a flag may stand before or after the
positional arguments; `--` ends the flags; the last one given wins. An own parser because argparse takes one dash for
a row of short flags and costs a third of the time in which `litestream version` has to be done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from litestream.errors import ConfigError

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
HELP_NAMES = frozenset({"h", "help"})


_NO_LTX = "replicas hold WAL segments here, and no LTX files"
ELSEWHERE = {
    ("restore", "txid"): f"{_NO_LTX}: -index or -timestamp say how far",
    ("restore", "v"): "the log says what is done: see -log-level",
    ("wal", "level"): f"{_NO_LTX} of several levels",
}
"""Flags of official releases that there cannot be here: by verb and name, why, and what there is."""


class HelpRequestedError(Exception):
    """`-h` was given; the caller prints the help text on stdout and exits 0."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `metavar` is empty for a switch (no value, or `=true` / `=false`)."""

    name: str
    help: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    default: str = ""
    number: bool = False
    """The value is a whole number of at least 1."""
    may_be_empty: bool = False
    """An empty value means something. Elsewhere it is the mark of an unset variable in a script."""

    @property
    def is_path(self) -> bool:
        """Whether the value is the path of a file or a directory."""
        return self.metavar == "PATH"


@dataclass(frozen=True, slots=True)
class Parsed:
    """What was given on the command line, checked against the flags of the verb."""

    verb: str
    values: Mapping[str, str]
    args: Sequence[str]

    def given(self, name: str) -> bool:
        """Whether the flag was given, with whatever value."""
        return name in self.values

    def text(self, name: str) -> str:
        """The flag's value, the empty string where it was not given."""
        return self.values.get(name, "")

    def switch(self, name: str) -> bool:
        """Whether a flag without value is on."""
        return self.values.get(name) == "true"

    def number(self, name: str, default: int) -> int:
        """The value of a flag whose value is a number."""
        return int(self.values[name]) if name in self.values else default


@dataclass(frozen=True, slots=True)
class FlagSet:
    """The flags and positional arguments of one verb, and its help text."""

    verb: str
    usage: str
    """The synopsis, one form a line, without `litestream `."""
    about: str
    flags: Sequence[Flag] = field(default_factory=tuple)
    min_args: int = 0
    max_args: int | None = 0
    missing: str = "argument required"
    """What to say when positional arguments are missing."""
    examples: str = ""
    words: tuple[str, ...] = ()
    """What the first positional argument can be, where that is known."""

    def parse(self, argv: Sequence[str]) -> Parsed:
        """Check and sort the arguments behind the verb.

        Raises `ConfigError` with one line for the first thing that is wrong, `HelpRequestedError` for `-h`.
        """
        values: dict[str, str] = {}
        args: list[str] = []
        rest = list(argv)
        if rest == ["help"]:
            raise HelpRequestedError
        while rest:
            word = rest.pop(0)
            if word == "--":
                args += rest
                break
            if len(word) < 2 or not word.startswith("-"):
                args.append(word)
                continue
            name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
            flag = self._find(name, word)
            if not flag.metavar:
                values[name] = self._switch(flag, value if equals else "true")
                continue
            if not equals:
                if not rest:
                    raise ConfigError(f"flag needs an argument: -{name}{self._see_help()}")
                value = rest.pop(0)
            values[name] = self._value(flag, value)
        self._count(args)
        return Parsed(self.verb, values, args)

    def _find(self, name: str, word: str) -> Flag:
        if name in HELP_NAMES:
            raise HelpRequestedError
        for flag in self.flags:
            if flag.name == name:
                return flag
        if (self.verb, name) in ELSEWHERE:
            raise ConfigError(f"flag provided but not defined: -{name}: {ELSEWHERE[self.verb, name]}")
        guess = closest(name, [flag.name for flag in self.flags])
        suggestion = f" (did you mean -{guess}?)" if guess else self._see_help()
        raise ConfigError(f"flag provided but not defined: {word.partition('=')[0]}{suggestion}")

    def _switch(self, flag: Flag, value: str) -> str:
        if value in _TRUE:
            return "true"
        if value in _FALSE:
            return "false"
        raise ConfigError(f'invalid boolean value "{value}" for -{flag.name}: use true or false')

    def _value(self, flag: Flag, value: str) -> str:
        if flag.choices and value.lower() not in flag.choices:
            raise ConfigError(f'invalid value "{value}" for flag -{flag.name}: use one of {", ".join(flag.choices)}')
        if flag.number and not (value.isascii() and value.isdigit() and 0 < int(value) < 1 << 31):
            raise ConfigError(f'invalid value "{value}" for flag -{flag.name}: a whole number from 1 on is needed')
        if not value and not flag.may_be_empty:
            raise ConfigError(f"the value of flag -{flag.name} is empty: leave the flag out, or give it one")
        return value.lower() if flag.choices else value

    def _count(self, args: Sequence[str]) -> None:
        if len(args) < self.min_args:
            raise ConfigError(f"{self.missing}{self._see_help()}")
        if self.max_args is not None and len(args) > self.max_args:
            raise ConfigError(f'too many arguments: "{args[self.max_args]}" is one too many{self._see_help()}')
        if "" in args:
            raise ConfigError(f"argument {args.index('') + 1} is empty{self._see_help()}")

    def _see_help(self) -> str:
        return f" (see: litestream {self.verb} -h)"

    def help_text(self) -> str:
        """The whole help text of the verb, ending with a newline."""
        lines = [self.about, "", "Usage:", ""]
        lines += [f"    litestream {form}" for form in self.usage.splitlines()]
        if self.flags:
            lines += ["", "Flags:", ""]
        for flag in self.flags:
            lines.append(f"    -{flag.name} {flag.metavar}".rstrip())
            lines += [f"        {line}" for line in flag.help.splitlines()]
            if flag.default:
                lines.append(f"        Default: {flag.default}")
        if self.examples:
            lines += ["", "Examples:", ""]
            lines += [f"    {line}".rstrip() for line in self.examples.strip().splitlines()]
        return "\n".join(lines) + "\n"


def closest(word: str, candidates: Sequence[str]) -> str:
    """The candidate that was probably meant, or the empty string."""
    from difflib import get_close_matches  # only on the way to an error

    found = get_close_matches(word.lower(), candidates, n=1, cutoff=0.6)
    return found[0] if found else ""
