"""What the status page is told: everything at first, then only what has changed."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.app import App
from helpers.cli import wait_until
from helpers.control import ask, short_folder
from helpers.destinations import place_in_s3
from helpers.rig import Rig
from helpers.servers.s3 import S3Server

Json = Any


class Live:
    """A page that asks again and again, and remembers."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.version = ""
        self.rows: dict[int, Json] = {}

    def ask(self, **query: object) -> Json:
        """The next answer, taken in."""
        fields = "&".join(f"{name}={value}" for name, value in {"since": self.version, **query}.items())
        with urllib.request.urlopen(f"{self._url}live.json?{fields}", timeout=20) as answer:
            found = json.load(answer)
        if found["reset"]:
            self.rows.clear()
        for number in found["removed"]:
            del self.rows[number]
        self.rows.update({row["id"]: row for row in found["databases"]})
        self.version = found["version"]
        return found

    def until(self, state: str) -> Json:
        """The row of the only database, once it is in that state."""

        def look() -> Json:
            self.ask()
            return next((row for row in self.rows.values() if row["state"] == state), None)

        return wait_until(look, lambda: f"{state}: {self.rows}")


@pytest.fixture
def at() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder / "c.sock"


def start(rig: Rig, at: Path, **options: Json) -> Live:
    rig.start(top={"addr": "127.0.0.1:0", "socket": {"enabled": True, "path": str(at)}}, **options)
    rig.daemon.wait_until_ready()
    return Live(rig.daemon.wait_for_log(r"status page at (http://\S+/)")[1])


def test_only_what_has_changed(rig: Rig, app: App, at: Path) -> None:
    """At rest nothing is told; commit, stop, start and the end of a database are. A strange version gets all."""
    live = start(rig, at)
    assert live.until("waiting")["status"] == "no database"
    app.create(rig.db)
    before = live.until("ok")
    wait_until(lambda: not live.ask()["databases"], "nothing happens")
    app.ledger(3)
    moved = wait_until(lambda: live.ask()["databases"], "the commit is told")
    assert [row["id"] for row in moved] == [before["id"]]
    body = {"path": str(rig.db)}
    assert ask(at, "POST", "/stop", body)[0] == 200
    assert live.until("stopped")["id"] == before["id"]
    assert live.ask(id=before["id"])["detail"] is None
    assert ask(at, "POST", "/start", body)[0] == 200
    assert live.until("ok")["pos"] >= moved[0]["pos"]
    assert ask(at, "POST", "/unregister", body)[0] == 200
    wait_until(lambda: live.ask()["removed"] or not live.rows, "it is gone")
    assert live.rows == {}
    live.version = "00000000-3"
    assert live.ask()["reset"] is True


def test_an_hour_in_earnest(rig: Rig, app: App, at: Path) -> None:
    """Uploads, their bytes and waits are those of the log; a snapshot is on the time line without a request."""
    app.create(rig.db)
    live = start(rig, at)
    number = live.until("ok")["id"]
    app.ledger(4)
    wait_until(lambda: live.ask()["databases"] == [], "it is at rest")
    found = live.ask(id=number)["detail"]["replicas"][0]
    log = [line for line in rig.daemon.text().splitlines() if "wal segment written" in line]
    assert sum(found["objects"]) == len(log) > 0
    assert sum(found["bytes"]) == sum(int(line.rpartition(" sz=")[2].split()[0]) for line in log)
    assert 0 < max(found["delays"]) < 20
    assert found["snapshot_count"] == len(found["snapshots"]) == 1
    assert found["restorable_from"] == found["snapshots"][0]
    assert found["verified"] is None
    assert found["requests"] is None


@pytest.mark.xdist_group("seaweedfs")
def test_requests_and_their_cost(rig: Rig, app: App, at: Path, seaweedfs: S3Server) -> None:
    """A replica's own requests are counted by kind; of a service without known prices no cost is told."""
    place = place_in_s3(seaweedfs)
    app.create(rig.db)
    keys = {name: value for name, value in place.entry.items() if "key" in name}
    live = start(rig, at, replica={"url": place.url, **keys})
    row = live.until("ok")
    replica = row["replicas"][0]
    assert replica["requests"] > 0
    assert replica["cost"] is None
    made = live.ask(id=row["id"])["detail"]["replicas"][0]["requests"]
    assert made["PUT"] >= 2  # a snapshot, and the WAL that belongs to it
    assert sum(made.values()) >= replica["requests"]
