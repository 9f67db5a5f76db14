"""The scripts that `litestream completion` prints, from the table of commands and their flags.

Write them again after a change of either, in the project's directory, with::

    uv run python -m litestream.cli.completion_scripts
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from shlex import quote

from litestream.cli import VERBS, load_verb
from litestream.cli.completion import FOLDER, SHELLS
from litestream.cli.flags import Flag, FlagSet

_HEAD = "# Completion of litestream(1), made by `python -m litestream.cli.completion_scripts`.\n"


def script(shell: str) -> str:
    """The script for one of `SHELLS`."""
    sets = {verb: load_verb(verb).FLAGS for verb in VERBS}
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](sets)


def _about(flag: Flag) -> str:
    return flag.help.replace("\n", " ")


# -- bash

_BASH = """
_litestream() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} verb=${{COMP_WORDS[1]}} flags= words=
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W "{verbs} help" -- "$cur"))
        return
    fi
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]]; then
        prev=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    case $verb:${{prev/#--/-}} in
{values}
    esac
    case $verb in
{flags}
        help) words="{verbs}" ;;
    esac
    if [[ $cur == --* ]]; then
        COMPREPLY=($(compgen -P - -W "$flags" -- "${{cur#-}}"))
    elif [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$cur"))
    elif [[ $words ]] && ((COMP_CWORD == 2)); then
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
    fi
}}
complete -o default -F _litestream litestream
"""


def _bash(sets: dict[str, FlagSet]) -> str:
    values, flags = [], []
    for verb, found in sets.items():
        names = " ".join(f"-{flag.name}" for flag in found.flags)
        words = f' words="{" ".join(found.words)}"' if found.words else ""
        flags.append(f'        {verb}) flags="{names} -h"{words} ;;')
        for flag in found.flags:
            if flag.choices:
                reply = f'COMPREPLY=($(compgen -W "{" ".join(flag.choices)}" -- "$cur")); '
            elif flag.metavar:
                reply = "" if flag.is_path else "compopt +o default 2>/dev/null; "
            else:
                continue
            values.append(f"        {verb}:-{flag.name}) {reply}return ;;")
    return _HEAD + _BASH.format(verbs=" ".join(VERBS), values="\n".join(values), flags="\n".join(flags))


# -- zsh

_ZSH = """
_litestream() {{
    local -a verbs
    verbs=(
{verbs}
    )
    if ((CURRENT == 2)); then
        _describe -t commands command verbs
        return
    fi
    case $words[2] in
{cases}
        help) _describe -t commands command verbs ;;
    esac
}}
if [[ ${{funcstack[1]}} == _litestream ]]; then
    _litestream "$@"
else
    compdef _litestream litestream
fi
"""


def _zsh(sets: dict[str, FlagSet]) -> str:
    verbs = "\n".join(f"        {quote(f'{verb}:{about}')}" for verb, about in VERBS.items())
    cases = "\n".join(_zsh_case(verb, found) for verb, found in sets.items())
    return f"#compdef litestream\n{_HEAD}{_ZSH.format(verbs=verbs, cases=cases)}"


def _zsh_case(verb: str, found: FlagSet) -> str:
    specs = [f"-{flag.name}[{_zsh_text(_about(flag))}]{_zsh_value(flag)}" for flag in found.flags]
    specs += ["1: :", f"2: :({' '.join(found.words)})" if found.words else "*:file:_files"]
    inside = "".join(f" \\\n            {quote(spec)}" for spec in specs)
    return f"        {verb}) _arguments{inside} ;;"


def _zsh_value(flag: Flag) -> str:
    if not flag.metavar:
        return ""
    action = f"({' '.join(flag.choices)})" if flag.choices else "_files" if flag.is_path else " "
    return f":{_zsh_text(flag.metavar)}:{action}"


def _zsh_text(text: str) -> str:
    return "".join(f"\\{c}" if c in "[]:\\" else c for c in text)


# -- fish


def _fish(sets: dict[str, FlagSet]) -> str:
    return _HEAD + "".join(f"complete -c litestream {line}\n" for line in _fish_lines(sets))


def _fish_lines(sets: dict[str, FlagSet]) -> Iterator[str]:
    for verb, about in VERBS.items():
        yield f"-f -n __fish_use_subcommand -a {verb} -d {_fish_text(about)}"
    yield f"-f -n '__fish_seen_subcommand_from help' -a {_fish_text(' '.join(VERBS))}"
    for verb, found in sets.items():
        where = f"-n '__fish_seen_subcommand_from {verb}'"
        if found.words:
            yield f"-f {where} -a {_fish_text(' '.join(found.words))}"
        for flag in found.flags:
            value = ""
            if flag.metavar:
                value = f" -x -a {_fish_text(' '.join(flag.choices))}" if flag.choices else " -x"
                value = " -r -F" if flag.is_path else value
            yield f"{where} -o {flag.name}{value} -d {_fish_text(_about(flag))}"


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def main() -> None:
    """Write every script."""
    os.makedirs(FOLDER, exist_ok=True)
    for shell in SHELLS:
        with open(os.path.join(FOLDER, f"litestream.{shell}"), "w", encoding="utf-8") as file:
            file.write(script(shell))


if __name__ == "__main__":
    main()
