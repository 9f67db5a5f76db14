"""The documentation says what is there: links, flags, names, versions."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

import litestream
from litestream import cli
from litestream.cli.flags import HELP_NAMES, FlagSet
from litestream.core.stamp import STAMP_SIZE
from litestream.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
COMMANDS = ("uv run litestream demo", "uv run pytest")

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"(?:^|[\s`=/])litestream ([a-z]+)((?: [^`\n]*)?)", re.MULTILINE)
_FLAG = re.compile(r"(?:^|[ \[(])--?([a-z][a-z-]*)")


def flag_sets() -> dict[str, FlagSet]:
    return {verb: cli.load_verb(verb).FLAGS for verb in cli.VERBS}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def unknown_flags(text: str) -> list[str]:
    """`verb -flag` for each flag behind `litestream VERB` in a text that the verb does not have."""
    verbs, found = flag_sets(), []
    for verb, rest in _COMMAND.findall(text):
        if verb not in verbs:
            continue
        known = {flag.name for flag in verbs[verb].flags} | HELP_NAMES
        words = rest.partition(" #")[0]
        found += [f"{verb} -{flag}" for flag in _FLAG.findall(words) if flag not in known]
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_resolve(page: Path) -> None:
    """Every relative link leads to a file of the project, and to a heading of it if it names one."""
    links = _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{name_of(page)} links to {link}"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(target), f"{name_of(page)} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_documented_flags_exist(page: Path) -> None:
    """Every `litestream VERB -flag` in the documentation is a flag of that verb."""
    assert unknown_flags(page.read_text(encoding="utf-8")) == []


def test_documented_flags_are_looked_at() -> None:
    """The check above sees flags of both forms, in code and in prose, and knows which verb they belong to."""
    text = "run `litestream restore -nope x` or\nlitestream wal [-json] --index 3 DB\n/x/litestream demo -dir=a  # -b\n"
    assert unknown_flags(text) == ["restore -nope", "wal -index"]


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_every_flag_is_in_the_command_line_page(verb: str) -> None:
    """docs/cli.md mentions every verb, and it or docs/control.md every flag that it has."""
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert f"`{verb}`" in text
    text += (ROOT / "docs" / "control.md").read_text(encoding="utf-8")
    for flag in flag_sets()[verb].flags:
        assert re.search(rf"[`\[ ]-{flag.name}\b", text), f"{verb} -{flag.name} is not in docs/cli.md or control.md"


def test_version_is_in_the_changelog() -> None:
    """The changelog's newest release is the version of the code, and of the package."""
    releases = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert releases[0] == VERSION == litestream.__version__
    assert f'\nversion = "{VERSION}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "AGENTS.md", "CONTRIBUTING.md"])
def test_the_two_commands_are_named(page: str) -> None:
    """Who arrives finds how to see it work and how to test it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert all(command in text for command in COMMANDS)


def test_readme_says_first_what_it_is_not() -> None:
    """That this is not the official program is said before anything else."""
    first = " ".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:6])
    assert "not the official Go program" in first


def test_every_public_name_is_documented() -> None:
    """docs/api.md has every name of `litestream.__all__`."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in set(litestream.__all__) - {"__version__"}:
        assert f"`{name}`" in text, name


def python_blocks() -> list[tuple[str, str]]:
    blocks = []
    for page in PAGES:
        for language, code in _FENCE.findall(page.read_text(encoding="utf-8")):
            if language == "python":
                blocks.append((name_of(page), code))
    return blocks


@pytest.mark.parametrize(("page", "code"), python_blocks())
def test_python_examples_name_what_exists(page: str, code: str) -> None:
    """Examples parse, and what they take from `litestream` is there."""
    for node in ast.walk(ast.parse(code, page)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("litestream"):
            module = import_module(node.module or "")
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "litestream":
            assert node.attr in litestream.__all__, ast.unparse(node)


def test_stamp_table_is_that_of_the_code() -> None:
    """The rows of the stamp's table in docs/formats.md follow each other without a gap, to the stamp's end."""
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    at = 0
    for offset, size in re.findall(r"^\| (\d+) \| (\d+) \|", text, re.MULTILINE):
        assert int(offset) == at
        at += int(size)
    assert at == STAMP_SIZE


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_stay_readable(page: Path) -> None:
    """A page has at most 250 lines, the tables that are generated not counted."""
    text = re.sub(r"<!-- keys: begin -->.*<!-- keys: end -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = re.sub(r"<!-- generated: (\w+) -->.*?<!-- end of generated: \1 -->", "", text, flags=re.DOTALL)
    assert len(text.splitlines()) <= 250
