"""What a replicator answers at its address, to programs, and whom it answers at all."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from helpers.app import App
from helpers.cli import Daemon, Database, wait_until, write_config
from helpers.madeup import MadeUpSight
from helpers.rig import Rig
from litestream.daemon import sight as module
from litestream.daemon.sight import LaneProbe
from litestream.metrics import Metrics
from litestream.web import serve_metrics
from litestream.web.guard import is_own_name
from litestream.web.site import routes

SECRET = "x9f8secret7w"


def get(url: str, target: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of one request."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    try:
        connection.request(method, target, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
    finally:
        connection.close()


def document(url: str, target: str) -> tuple[int, Any]:
    status, headers, body = get(url, target)
    assert headers["content-type"] == "application/json"
    return status, json.loads(body)


def start(rig: Rig, **options: Any) -> str:  # noqa: ANN401 - keys of the configuration
    daemon = rig.start(top={"addr": "127.0.0.1:0", **options})
    daemon.wait_until_ready()
    return daemon.wait_for_log(r"status page at (http://\S+/)")[1]


def test_health_and_readiness(rig: Rig, app: App) -> None:
    """A replicator without its database is well and not ready; with it it is both, and says how far that holds."""
    url = start(rig)
    assert document(url, "/healthz")[0] == 200
    status, found = document(url, "/readyz")
    assert (status, found["ok"], found["databases"]) == (503, False, 1)
    assert [reason.partition(": ")[0] for reason in found["reasons"]] == [str(rig.db)]
    app.create(rig.db)
    wait_until(lambda: document(url, "/readyz")[0] == 200, "it is ready")
    found = document(url, "/readyz?within=5")[1]
    assert (found["ok"], found["within_seconds"], found["reasons"]) == (True, 5.0, [])


def test_readiness_names_the_replica_that_is_behind(rig: Rig, app: App, daemons: Callable[..., Daemon]) -> None:
    """A replica that cannot be written makes the replicator not ready, and the reason is there."""
    blocked = rig.folder / "blocked"
    blocked.write_text("no directory")
    app.create(rig.db)
    config = rig.folder / "litestream.yml"
    write_config(config, [Database(rig.db, [{"path": str(blocked / "replica")}], {})], addr="127.0.0.1:0")
    daemon = daemons(config).start()
    daemon.wait_until_ready()
    url = daemon.wait_for_log(r"status page at (http://\S+/)")[1]
    wait_until(lambda: "blocked" in str(document(url, "/readyz")[1]["reasons"]), "the reason is told")
    status, found = document(url, "/readyz")
    assert status == 503
    assert found["reasons"][0].startswith(f"{rig.db}(file): ")
    assert document(url, "/healthz")[0] == 200


def test_status_document(rig: Rig, app: App) -> None:
    """`/status.json` is what `litestream status -json` of the socket shows, of all databases or one."""
    app.create(rig.db)
    url = start(rig)
    wait_until(lambda: document(url, "/status.json")[1]["ok"], "it is safe")
    status, found = document(url, f"/status.json?db={quote(str(rig.db))}&within=7")
    assert (status, found["within_seconds"]) == (200, 7.0)
    assert [(db["path"], db["status"]) for db in found["databases"]] == [(str(rig.db), "ok")]
    assert found["databases"][0]["replicas"][0]["url"] == str(rig.replica)
    assert document(url, "/status.json?db=/nowhere.db")[0] == 404
    for wrong in ("x", "-1", "nan", "1e9"):
        assert document(url, f"/status.json?within={wrong}")[0] == 400


def test_nothing_can_be_changed(rig: Rig, app: App) -> None:
    """No other method than GET and HEAD is served, and the control API is not there."""
    app.create(rig.db)
    url = start(rig)
    for target in ("/", "/healthz", "/readyz", "/status.json", "/live.json", "/metrics"):
        assert [get(url, target, method)[0] for method in ("POST", "PUT", "DELETE")] == [405] * 3, target
        assert get(url, target, "HEAD")[0] in (200, 503)
    for target in ("/stop", "/start", "/sync", "/reset", "/register", "/unregister", "/status", "/list"):
        assert get(url, target, "POST")[0] == 404


def test_other_names_are_refused(rig: Rig, app: App) -> None:
    """At an address of this host alone a name of the internet that leads here is not answered: metrics neither."""
    app.create(rig.db)
    url = start(rig)
    for host in ("evil.example", "evil.example:9090", "localhost.evil.example", "192.0.2.1", "1.0.0.127"):
        for target in ("/", "/status.json", "/metrics"):
            status, _, body = get(url, target, Host=host)
            assert (status, str(rig.db) in body) == (421, False), host
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:9090", "[::1]:80", "127.9.9.9", "app.localhost"):
        assert get(url, "/healthz", Host=host)[0] == 200, host


def test_no_secret_is_told(rig: Rig, app: App, daemons: Callable[..., Daemon]) -> None:
    """Keys, passwords in URLs and the heartbeat's address are in no answer."""
    app.create(rig.db)
    keys = {"access-key-id": "k", "secret-access-key": SECRET}
    replicas = [
        {"name": "a", "url": "s3://bucket/app?endpoint=http://127.0.0.1:9", **keys},
        {"name": "b", "type": "webdav", "webdav-url": "http://127.0.0.1:9/d", "webdav-password": SECRET},
        {"name": "c", "url": f"nats://user:{SECRET}@127.0.0.1:9/bucket/app"},
    ]
    config = rig.folder / "litestream.yml"
    beat = f"http://127.0.0.1:9/{SECRET}"
    write_config(config, [Database(rig.db, [*replicas], {})], addr="127.0.0.1:0", **{"heartbeat-url": beat})
    daemon = daemons(config).start()
    daemon.wait_until_ready()
    url = daemon.wait_for_log(r"status page at (http://\S+/)")[1]
    wait_until(lambda: '"error": "' in get(url, "/live.json")[2], "a replica has failed")
    for target in ("/", "/healthz", "/readyz", "/status.json", "/live.json?id=1", "/metrics"):
        body = get(url, target)[2]
        assert SECRET not in body, target
    detail = json.loads(get(url, "/live.json?id=1")[2])["detail"]
    assert "litestream restore -o ./app.db.restored 's3://bucket/app?endpoint=http://127.0.0.1:9'" in str(
        detail["replicas"][0]["commands"]
    )


# -- in this process


async def test_headers_and_files() -> None:
    """Every answer forbids whatever is not ours; what belongs to the page may be kept for ever under its hash."""
    web = await serve_metrics("127.0.0.1:0", Metrics(), routes(MadeUpSight(1)))

    def look() -> None:
        for target in ("/", "/status.css", "/status.js", "/icon.svg", "/live.json", "/metrics", "/nothing"):
            _, headers, _ = get(web.page, target)
            assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
            assert headers["x-content-type-options"] == "nosniff"
            assert "server" not in headers
        _, headers, page = get(web.page, "/")
        assert headers["cache-control"] == "no-cache"
        assert get(web.page, "/", If_None_Match=headers["etag"])[0] == 304
        assert get(web.page, "/live.json")[1]["cache-control"] == "no-store"
        for name in ("status.css", "status.js", "icon.svg"):
            version = page.partition(f'"{name}?v=')[2].partition('"')[0]
            assert "immutable" in get(web.page, f"/{name}?v={version}")[1]["cache-control"]
            assert get(web.page, f"/{name}?v=old")[1]["cache-control"] == "no-cache"
        assert "http://" not in page.replace("http://www.w3.org/", "")
        assert "https://" not in page

    try:
        await asyncio.to_thread(look)
    finally:
        await web.close()


async def test_a_configured_network_is_answered_under_any_name() -> None:
    """Where other hosts may connect, the name by which they do is theirs to know."""
    web = await serve_metrics("0.0.0.0:0", Metrics(), routes(MadeUpSight(1)))
    try:
        local = web.page.replace("0.0.0.0", "127.0.0.1")
        assert (await asyncio.to_thread(get, local, "/healthz", Host="db.internal:9090"))[0] == 200
    finally:
        await web.close()


@pytest.mark.parametrize(
    ("host", "ours"),
    [("myhost:1", True), ("MyHost.", True), ("", True), ("[::1]", True), ("[::2]:1", False),
     ("myhost.example", False), ("127.0.0.1.example", False), ("localhost:x", False), ("a b", False)],
)  # fmt: skip
def test_names_of_this_host(host: str, ours: bool) -> None:
    """The configured name, localhost and loopback's addresses, with any port or none, and nothing that looks alike."""
    assert is_own_name(host, "myhost") is ours


async def test_threads_that_hang_are_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the threads do not answer that is told, with one question under way however many ask; later it is over."""
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    release = threading.Event()
    with ThreadPoolExecutor(1) as lane:
        lane.submit(release.wait)
        probe = LaneProbe(lane)
        began = time.monotonic()
        waited = await asyncio.gather(*(probe.waited() for _ in range(20)))
        assert min(waited) > 0
        assert lane._work_queue.qsize() == 1
        assert await probe.waited() <= time.monotonic() - began
        release.set()
        while await probe.waited():
            pass
        assert await probe.waited() == 0.0
