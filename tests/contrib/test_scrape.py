"""What a real replicator exposes, read by Prometheus' own programs; and nothing of it stays of what has gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

from helpers.app import App
from helpers.cli import wait_until
from helpers.control import ask, short_folder
from helpers.promtool import check
from helpers.rig import Rig

OFFICIAL_SPELLING = {
    f"litestream_{name}"
    for name in (
        *("total_wal_bytes", "sync_count", "sync_error_count", "sync_seconds", "replica_wal_bytes"),
        *("checkpoint_count", "checkpoint_error_count", "checkpoint_seconds", "replica_operation_bytes"),
        "replica_snapshot_total",
    )
}
"""What promtool has something against: counters without `_total`, and a gauge with it. 0.3.13 and 0.5 have them so."""


def scrape(url: str, **headers: str) -> str:
    with urlopen(Request(url, headers=headers), timeout=20) as page:
        text: str = page.read().decode()
    return text


def own(text: str) -> set[str]:
    """The lines of ours, without their numbers."""
    return {line.rpartition(" ")[0] for line in text.splitlines() if line.startswith("litestream_")}


def test_a_database_comes_and_goes(rig: Rig, apps: Callable[[], App], tmp_path: Path) -> None:
    """The exposition of a real process is valid for Prometheus, has each database while it is replicated, and is the
    same as before when one has gone, whatever that had counted."""
    apps().create(rig.db)
    with short_folder() as folder:
        path = folder / "s"
        rig.start(args=("-addr", "127.0.0.1:0"), top={"socket": {"enabled": True, "path": str(path)}})
        url = rig.daemon.wait_for_log(r"serving metrics on (\S+)")[1]
        rig.converge()
        wait_until(lambda: "litestream_replica_snapshot_total" in scrape(url), "a snapshot")
        before = own(scrape(url))
        assert len(before) > 20
        second = tmp_path / 'se"cond.db'
        app = apps()
        app.create(second)
        body = {"path": str(second), "replica_url": f"file://{tmp_path}/second"}
        assert ask(path, "POST", "/register", body)[0] == 200
        app.sql("CREATE TABLE more(x)")
        assert ask(path, "POST", "/sync", {"path": str(second), "wait": True})[0] == 200
        with_it = scrape(url)
        assert sum("cond.db" in line for line in own(with_it)) == len(own(with_it) - before) > 20
        _check(with_it, {str(rig.db), str(second)})
        assert ask(path, "POST", "/unregister", {"path": str(second)})[0] == 200
        after = scrape(url)
        assert [line for line in own(after) if "cond.db" in line] == []
        assert before <= own(after)
        assert rig.daemon.stop() == 0


def _check(text: str, paths: set[str]) -> None:
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {sample.labels["db"] for sample in families["litestream_db_size"].samples} == paths
    txid = {sample.labels["db"]: sample.value for sample in families["litestream_txid"].samples}
    assert all(txid.values())
    assert {sample.value for sample in families["litestream_disk_full"].samples} == {0.0}
    done = check("check", "metrics", text=text)
    complaints = (done.stdout + done.stderr).splitlines()
    assert [line for line in complaints if line.split()[0] not in OFFICIAL_SPELLING] == []
    assert done.returncode in (0, 3)  # 3: it was parsed, and there are complaints
