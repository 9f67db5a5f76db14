"""The pictures of docs/status-page.md: `cd tests && uv run python -m helpers.screenshots ../docs/images`.

The page is the real one, in real Chromium; the databases are made up, because an hour of history takes an hour.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from helpers.browser import Page, browser
from helpers.madeup import MadeUpSight
from litestream.metrics import Metrics
from litestream.web import serve_metrics
from litestream.web.site import routes

WIDTH = 1280


def in_trouble(sight: MadeUpSight) -> None:
    """Two databases with something wrong, and one that was stopped."""
    failed = (
        "write index segments: index=17 err=s3://backups-eu: 403 AccessDenied: check the credentials of the replica"
    )
    lag: dict[str, Any] = {"lag": 754.2, "lag_bytes": 9_400_000, "uploaded": time.time() - 754}
    sight.change(3, state="error", replica={"state": "error", "error": failed, **lag, **_growing(sight, 3, 754)})
    lag = {"lag": 41.0, "lag_bytes": 88_000, "uploaded": time.time() - 41}
    sight.change(5, state="behind", replica={"state": "behind", **lag, **_growing(sight, 5, 41)})
    stopped: dict[str, Any] = {
        "state": "stopped",
        "delay": None,
        "minute": 0,
        "delays": [],
        "uploaded": time.time() - 4000,
    }
    sight.change(8, state="stopped", status="stopped", replica=stopped)


def _growing(sight: MadeUpSight, number: int, lag: int) -> dict[str, Any]:
    """Minutes of which the last ones wait longer and longer."""
    late = [1000 * seconds for seconds in range(lag % 60, lag + 1, 60)]
    before = sight.rows[number]["replicas"][0]["delays"]
    return {"minute": int(time.time() // 60), "delays": [*before[len(late) :], *late]}


def _rows(page: Page, url: str, count: int) -> None:
    page.open(url)
    page.wait(f"document.querySelectorAll('.row').length === {count} && !!document.querySelector('.rep')")


def _few(page: Page, url: str, folder: Path) -> None:
    page.look(WIDTH, 1060)
    _rows(page, url, 6)
    page.run("document.querySelector('.db').click()")
    page.wait("!!document.querySelector('.command')")
    page.screenshot(folder / "status-light.png")


def _many(page: Page, url: str, folder: Path) -> None:
    page.look(WIDTH, 760, dark=True)
    _rows(page, url, 1000)
    page.screenshot(folder / "status-1000-dark.png")
    page.look(390, 760, dark=True)
    page.screenshot(folder / "status-phone.png")


async def take(folder: Path) -> None:
    """Write all of them into a folder."""
    few, many = MadeUpSight(6, replicas=2), MadeUpSight(1000)
    in_trouble(many)
    with browser() as chromium:
        page = chromium.page()
        for sight, work in ((few, _few), (many, _many)):
            web = await serve_metrics("127.0.0.1:0", Metrics(), routes(sight))
            try:
                await asyncio.to_thread(work, page, web.page, folder)
            finally:
                await web.close()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    asyncio.run(take(target))
