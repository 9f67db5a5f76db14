"""`litestream completion`: the script with which a shell completes commands and flags, written beforehand."""

from __future__ import annotations

import os

from litestream.cli import stdout
from litestream.cli.flags import FlagSet, Parsed
from litestream.errors import ConfigError

SHELLS = ("bash", "zsh", "fish")
FOLDER = os.path.join(os.path.dirname(__file__), "completions")

FLAGS = FlagSet(
    verb="completion",
    usage="completion bash|zsh|fish",
    about=(
        "Print a script with which the shell completes commands, flags and their values. The script does it alone:\n"
        "this program is not started for it."
    ),
    min_args=1,
    max_args=1,
    missing="the shell is required: bash, zsh or fish",
    words=SHELLS,
    examples="""
source <(litestream completion bash)                      (in ~/.bashrc)
source <(litestream completion zsh)                       (in ~/.zshrc, behind compinit)
litestream completion fish > ~/.config/fish/completions/litestream.fish
""",
)


def run(parsed: Parsed) -> int:
    shell = parsed.args[0]
    if shell not in SHELLS:
        raise ConfigError(f"litestream completion {shell}: no script for this shell: there is {', '.join(SHELLS)}")
    with open(os.path.join(FOLDER, f"litestream.{shell}"), encoding="utf-8") as script:
        stdout.write(script.read())
    return 0
