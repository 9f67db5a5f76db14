"""The status page in real Chromium: over a real replicator, and over a thousand made-up databases."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from helpers import state
from helpers.app import App
from helpers.browser import Browser, Page, browser
from helpers.cli import OURS, Daemon, Database, environment, wait_until, write_config
from helpers.madeup import MadeUpSight
from helpers.rig import Rig
from litestream.metrics import Metrics
from litestream.web import WebServer, serve_metrics
from litestream.web.site import routes

pytestmark = pytest.mark.xdist_group("chromium")

HOSTILE = "<img src=x onerror=alert(1)>\"'&\u202eé漢.db"
ROW = "document.querySelector('.row')"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A tab; in the end nothing was asked of anybody else, and the console is empty."""
    found = chromium.page()
    yield found
    elsewhere = [url for url in found.requests if not re.match(r"http://(127\.0\.0\.1|localhost):|data:", url)]
    assert elsewhere == []
    assert found.complaints == []
    found.close()


def started(daemon: Daemon) -> str:
    """The page's address, once everything has begun."""
    daemon.wait_until_ready()
    return daemon.wait_for_log(r"status page at (http://\S+/)")[1]


def position(page: Page) -> str:
    found: str = page.run("document.querySelector('.rep .pos').textContent")
    return found


def test_rows_and_a_new_commit(rig: Rig, app: App, page: Page) -> None:
    """A database is there with its replica, and a commit moves its position without a reload."""
    app.create(rig.db)
    app.ledger(3)
    page.open(started(rig.start(top={"addr": "127.0.0.1:0"})))
    page.wait(f"!!{ROW} && {ROW}.querySelector('.db').dataset.state === 'ok'")
    assert page.run("document.querySelector('.name').textContent") == "app.dbok"
    assert page.run("document.querySelector('.place').textContent") == f"file{rig.replica}"
    page.wait("document.getElementById('headline').textContent === 'The database is safe'")
    page.run("window.same = true")
    before = position(page)
    assert re.fullmatch(r"[0-9a-f]{8}:[0-9a-f]{8}", before)
    app.ledger(2)
    page.wait(f"document.querySelector('.rep .pos').textContent !== {before!r}")
    assert page.run("window.same") is True
    page.wait("/^[0-9]+ m?s$/.test(document.querySelector('.rep .cell').textContent)")


def test_the_restore_command_works(rig: Rig, app: App, page: Page) -> None:
    """Each command that the copy buttons give restores the very database; the page says so."""
    app.create(rig.db)
    app.ledger(5)
    daemon = rig.start(top={"addr": "127.0.0.1:0"})
    url = started(daemon)
    page.allow_clipboard(url)
    page.open(url)
    rig.converge()
    page.wait("!!document.querySelector('.db')")
    page.run("document.querySelector('.db').click()")
    page.wait("document.querySelectorAll('.command button').length === 2")
    where = rig.folder / "elsewhere"
    where.mkdir()
    for number in range(2):
        page.run(f"document.querySelectorAll('.command button')[{number}].click()")
        page.wait(f"document.querySelectorAll('.command button')[{number}].textContent === 'Copied'")
        command = shlex.split(page.run("navigator.clipboard.readText()"))
        assert command[:2] == ["litestream", "restore"]
        subprocess.run([str(OURS.binary), *command[1:]], cwd=where, env=environment(), check=True, capture_output=True)
        assert state.read(where / "app.db.restored") == state.source(rig.db)
        (where / "app.db.restored").unlink()


def test_what_is_wrong_is_shown(rig: Rig, app: App, page: Page, daemons: Callable[..., Daemon]) -> None:
    """A replica that fails makes its database the first one, with the reason, while the page is open."""
    other = rig.folder / "zz.db"
    app.create(rig.db)
    app.open(other, name="other", pragmas=["journal_mode=WAL"]).sql("CREATE TABLE t(x)", name="other")
    places = [rig.replica, rig.folder / "zz-replica"]
    databases = [
        Database(db, [{"type": "file", "path": str(place)}], {})
        for db, place in zip((rig.db, other), places, strict=True)
    ]
    config = write_config(rig.folder / "two.yml", databases, sync="50ms", addr="127.0.0.1:0")
    page.open(started(daemons(config).start()))
    page.wait("document.getElementById('headline').textContent === 'All 2 databases are safe'")
    shutil.rmtree(places[1])
    places[1].write_text("no directory")
    app.sql("INSERT INTO t VALUES (1)", name="other")
    page.wait(f"{ROW}.querySelector('.db').dataset.state === 'error'")
    assert page.run(f"{ROW}.querySelector('bdi').textContent") == "zz.db"
    assert "zz-replica" in page.wait(f"{ROW}.querySelector('.why')?.textContent")
    assert page.run("document.getElementById('headline').textContent") == "1 database of 2 needs attention"
    page.run("document.querySelector('.tile[data-state=error]').click()")
    assert page.run("document.querySelectorAll('.row:not([hidden])').length") == 1
    places[1].unlink()
    page.wait("document.getElementById('headline').textContent === 'All 2 databases are safe'")


def test_a_replicator_that_is_gone(rig: Rig, app: App, page: Page) -> None:
    """When the replicator does not answer any more, the page says that what it shows is old."""
    app.create(rig.db)
    daemon = rig.start(top={"addr": "127.0.0.1:0"})
    page.open(started(daemon))
    page.wait("document.getElementById('live').dataset.state === 'ok'")
    daemon.freeze()
    page.wait("document.body.classList.contains('lost')", timeout=15)
    assert "old" in page.run("document.getElementById('live-text').textContent")
    daemon.thaw()
    page.wait("document.getElementById('live').dataset.state === 'ok'")


def test_hostile_names_are_text(rig: Rig, app: App, page: Page) -> None:
    """Markup in a file's name is shown as it is, and what would turn the line around is written out."""
    rig.db = rig.folder / HOSTILE
    app.create(rig.db)
    page.open(started(rig.start(top={"addr": "127.0.0.1:0"})))
    page.wait("!!document.querySelector('.rep')")
    assert page.run("document.querySelector('.name bdi').textContent") == HOSTILE.replace("\u202e", "\\u202e")
    assert page.run("document.querySelectorAll('img').length") == 1  # our own
    page.run("document.querySelector('.db').click()")
    page.wait("!!document.querySelector('.command')")
    command = page.run("document.querySelector('.command code').textContent")
    assert "<img src=x" in command or "\\x3cimg" in command


# -- made up


@pytest.fixture
async def many() -> AsyncIterator[tuple[MadeUpSight, WebServer]]:
    sight = MadeUpSight(1000)
    web = await serve_metrics("127.0.0.1:0", Metrics(), routes(sight))
    yield sight, web
    await web.close()


async def test_a_thousand_databases(page: Page, many: tuple[MadeUpSight, WebServer]) -> None:
    """They are there within two seconds, only what is in view is drawn, and the filter finds one of them."""
    sight, web = many

    def look() -> None:
        page.open(web.page)
        page.wait("document.querySelectorAll('.row').length === 1000 && !!document.querySelector('.rep')")
        took = page.run("performance.getEntriesByType('resource').find((e) => /live.json/.test(e.name)).responseEnd")
        now = page.run("performance.now()")
        assert took < now < 2000
        assert page.run("document.querySelectorAll('.rep').length") < 200
        page.press("/")
        assert page.run("document.activeElement.id") == "filter"
        page.type("events42")
        page.wait("document.querySelectorAll('.row:not([hidden])').length === 1")
        assert page.run("document.getElementById('count').textContent") == "1 of 1,000 databases"
        page.press("Escape")
        page.wait("document.querySelectorAll('.row:not([hidden])').length === 1000")

    def later() -> None:
        page.wait(f"{ROW}.querySelector('.db').dataset.state === 'error'")
        page.run("window.scrollTo(0, document.body.scrollHeight)")
        page.wait("!![...document.querySelectorAll('.row')].at(-1).querySelector('.rep')")
        sizes = page.run(
            "performance.getEntriesByType('resource').filter(e => /live/.test(e.name)).map(e => e.encodedBodySize)"
        )
        assert sizes[0] > 100_000
        assert max(sizes[1:]) < 5000  # what did not change is not told again

    await asyncio.to_thread(look)
    sight.change(500, state="error", error="made up")
    await asyncio.to_thread(later)


async def test_without_a_mouse(page: Page, many: tuple[MadeUpSight, WebServer]) -> None:
    """Arrows go from database to database, Enter opens one, and its parts are reached by Tab; the focus stays where
    it is when the order changes."""
    sight, web = many

    def keys() -> None:
        page.open(web.page)
        page.wait("document.querySelectorAll('.row').length === 1000")
        page.press("/")
        page.press("ArrowDown")
        assert page.run("document.activeElement === document.querySelector('.db')")
        page.press("ArrowDown")
        assert page.run("document.activeElement === document.querySelectorAll('.db')[1]")
        page.press("Enter")
        page.wait(
            "document.activeElement.getAttribute('aria-expanded') === 'true' && !!document.querySelector('.command')"
        )
        page.press("Tab")
        assert page.run("!!document.activeElement.closest('.command')")
        page.run("window.focused = document.activeElement")

    def moved() -> None:
        page.wait(f"{ROW}.querySelector('.db').dataset.state === 'error'")
        assert page.run("document.activeElement === window.focused")

    await asyncio.to_thread(keys)
    sight.change(1, state="behind")
    sight.change(600, state="error")
    await asyncio.to_thread(moved)


async def test_it_fits_a_phone_in_both_colours(page: Page, many: tuple[MadeUpSight, WebServer]) -> None:
    """Nothing is wider than a phone, opened or not, and dark is dark."""
    _, web = many

    def look() -> None:
        background = []
        for dark in (False, True):
            page.look(360, 740, dark=dark)
            page.open(web.page)
            page.wait("!!document.querySelector('.rep')")
            page.run("document.querySelector('.db').click()")
            page.wait("!!document.querySelector('.command')")
            assert page.run("document.documentElement.scrollWidth") == 360
            background.append(page.run("getComputedStyle(document.body).backgroundColor"))
        light, dark_one = (sum(map(int, re.findall(r"\d+", colour))) for colour in background)
        assert light > 600
        assert dark_one < 120

    await asyncio.to_thread(look)


def test_what_is_made_up_is_as_in_earnest(rig: Rig, app: App) -> None:
    """The made-up databases have the very fields that a replicator tells of."""
    import urllib.request

    app.create(rig.db)
    url = started(rig.start(top={"addr": "127.0.0.1:0"}))

    def get() -> Any:  # noqa: ANN401 - what json.loads gives
        with urllib.request.urlopen(f"{url}live.json?id=1") as answer:
            return json.load(answer)

    wait_until(lambda: get()["detail"], "the first look has given the database its number")
    real, made = get(), json.loads(asyncio.run(MadeUpSight(1).changes("", 1)))
    assert shape(real) == shape(made)


def shape(value: Any) -> Any:  # noqa: ANN401 - what json.loads gives
    """The names of all fields, at any depth."""
    if isinstance(value, dict):
        return {name: shape(field) for name, field in value.items() if name not in ("requests", "verified", "prices")}
    return [shape(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else None
