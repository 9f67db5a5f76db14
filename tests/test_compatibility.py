"""docs/compatibility.md: each official verb, flag, key, request and metric is fed to the program and compared."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.app import App
from helpers.cli import Daemon, Database, Yaml, wait_until, write_config
from helpers.compatibility import (
    ACCEPTED,
    FLAGS,
    METRICS,
    PAGE,
    REFUSED,
    REQUESTS,
    SERVICES,
    VALUES,
    VARIABLES,
    VERBS,
    WORKS,
    file_with,
    official_keys,
    page,
)
from helpers.control import ask, short_folder
from litestream import cli
from litestream.config import loads
from litestream.config.key import Key
from litestream.errors import ConfigError
from litestream.metrics import DEFAULT, Family, Histogram

ROOT = PAGE.parents[1]
CUSTOMER_KEY = "aHVzaC1odXNoLWh1c2gtaHVzaC1odXNoLWh1c2gtaHU="


def sections() -> dict[str, dict[str, tuple[str, str]]]:
    """Title to name to releases and claim, as the page has them."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for part in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        title, _, rest = part.partition("\n")
        rows = re.findall(r"^\| (.+?) \| ([0-9. ]+) \| (.+) \|$", rest, re.MULTILINE)
        found[title] = {name.strip("`"): (versions, claim) for name, versions, claim in rows}
    return found


CLAIMS = sections()


def parts(claim: str) -> tuple[str, str]:
    """State and reason."""
    state, _, reason = claim.partition(": ")
    assert state in {WORKS, ACCEPTED, REFUSED}, claim
    assert reason or state == WORKS
    return state, reason


def test_the_page_is_up_to_date() -> None:
    """Its tables are those that `python -m helpers.compatibility` (in tests/) writes."""
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text


def test_nothing_official_is_missing() -> None:
    """Every item of the lists has a row."""
    assert set(CLAIMS["Verbs"]) == set(VERBS)
    assert set(CLAIMS["Flags"]) == {f"{verb} -{flag}" for verb, flags in FLAGS.items() for flag in flags}
    assert set(CLAIMS["Metrics"]) == {f"litestream_{name}" for name in METRICS}
    assert set(CLAIMS["Environment variables"]) == set(VARIABLES)
    assert set(CLAIMS["Services"]) == {what.strip("`") for what, *_ in SERVICES}
    for where, requests in REQUESTS.items():
        assert set(CLAIMS[f"Requests at the {where}"]) == set(requests)
    for section, key in official_keys():
        assert key.name in CLAIMS[f"Keys: {section}"]


@pytest.mark.parametrize("verb", VERBS)
def test_verbs(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A verb that works has help; one that is refused says why."""
    state, reason = parts(CLAIMS["Verbs"][verb][1])
    code = cli.run([verb, "-h"])
    out, err = capsys.readouterr()
    if state == WORKS:
        assert (code, err) == (0, "")
        assert "Usage:" in out
    else:
        assert (code, out) == (1, "")
        assert err == f"Error: litestream {verb}: unknown command: {reason}\n"


@pytest.mark.parametrize(("verb", "flag"), [(verb, flag) for verb, flags in FLAGS.items() for flag in flags])
def test_flags(verb: str, flag: str) -> None:
    """A flag that works is parsed, with one dash or two and in both forms; one that is refused says why."""
    state, reason = parts(CLAIMS["Flags"][f"{verb} -{flag}"][1])
    flags = cli.load_verb(verb).FLAGS
    known = {known.name: known for known in flags.flags}
    args = ["x"] * flags.min_args
    if state == REFUSED:
        with pytest.raises(ConfigError, match=re.escape(reason)):
            flags.parse([f"-{flag}", "x", *args])
        return
    assert state == WORKS
    value = VALUES.get(flag, "x")
    forms = [[f"-{flag}"], [f"--{flag}=true"]]
    if known[flag].metavar:
        forms = [[f"-{flag}", value], [f"--{flag}={value}"]]
    for form in forms:
        parsed = flags.parse([*form, *args])
        assert parsed.text(flag) == (value if known[flag].metavar else "true")
        assert list(parsed.args) == args


@pytest.mark.parametrize(
    ("section", "key"), [*official_keys()], ids=lambda value: value.name if isinstance(value, Key) else value
)
def test_keys(section: str, key: Key, tmp_path: Path) -> None:
    """A key works without a word, is warned about, or is an error; the reason is the one on the page."""
    file = tmp_path / "file"
    file.write_text(CUSTOMER_KEY)
    state, reason = parts(CLAIMS[f"Keys: {section}"][key.name][1])
    text = file_with(section, key, file)
    assert f'"{key.name}"' in text
    if state == REFUSED:
        with pytest.raises(ConfigError) as caught:
            loads(text, expand_env=False)
        assert str(caught.value).endswith(f"{key.name}: {reason}")
        return
    warnings = loads(text, expand_env=False).warnings
    expected = "levels" if section == "levels[]" else key.name
    assert [one.endswith(f"{expected}: {reason}") for one in warnings] == [True] * (state == ACCEPTED), warnings


def labels_of(family: Family | Histogram) -> set[str]:
    return set(family.label_names)


@pytest.mark.parametrize("name", METRICS)
def test_metrics(name: str) -> None:
    """A metric that works has the official name and labels; one that does not is not there."""
    state, _ = parts(CLAIMS["Metrics"][f"litestream_{name}"][1])
    families = {family.name: family for family in DEFAULT.families()}
    assert (f"litestream_{name}" in families) == (state == WORKS)
    if state == WORKS:
        assert labels_of(families[f"litestream_{name}"]) == set(METRICS[name][1].split())


@pytest.mark.parametrize("name", VARIABLES)
def test_variables(name: str) -> None:
    """A variable that works is read, or set, by some module; one without effect by none."""
    state, _ = parts(CLAIMS["Environment variables"][name][1])
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    assert (f'"{name}"' in sources) == (state == WORKS)


@pytest.fixture
def at() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder / "c.sock"


def test_requests(tmp_path: Path, at: Path, app: App, daemons: Callable[..., Daemon]) -> None:
    """What works is answered by a running replicator, if with an error where something is missing; else it is 404."""
    app.create(tmp_path / "app.db")
    top: dict[str, Yaml] = {"socket": {"enabled": True, "path": str(at)}, "addr": "127.0.0.1:0", "stream": True}
    config = write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [tmp_path / "r"])], **top)
    daemon = daemons(config).start()
    daemon.wait_until_ready()
    wait_until(at.exists, "the socket")
    for request, (_, claim) in CLAIMS["Requests at the socket"].items():
        method, path = request.split()
        if parts(claim)[0] == WORKS:
            status, answer = ask(at, method, path, {} if method == "POST" else None)
            assert status == (400 if method == "POST" or path == "/txid" else 200), (request, answer)
        else:
            with pytest.raises(AssertionError, match="Not Found"):  # no JSON: nobody there
                ask(at, method, path)
    found = re.search(r"serving metrics on (\S+?)(/metrics)?\s", daemon.text())
    assert found, daemon.text()
    for request, (_, claim) in CLAIMS["Requests at the addr"].items():
        try:
            with urllib.request.urlopen(found[1] + request.split()[1], timeout=20) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
            error.close()
        assert (status != 404) == (parts(claim)[0] == WORKS), (request, status)
    assert daemon.stop() == 0
