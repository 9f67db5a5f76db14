"""Metrics: the official names, types, labels and help texts, and how they are served."""

from __future__ import annotations

import asyncio
import gc
import gzip
import itertools
import re
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from helpers.official import V03, V05, official
from litestream.errors import ConfigError
from litestream.metrics import Distribution, Family, Metrics, budget_name, expose, expose_in_turns
from litestream.web import parse_addr, serve_metrics

OFFICIAL = {
    "db_size": ("gauge", {"db"}, "The current size of the real DB"),
    "wal_size": ("gauge", {"db"}, "The current size of the real WAL"),
    "total_wal_bytes": ("counter", {"db"}, "Total number of bytes written to shadow WAL"),
    "shadow_wal_index": ("gauge", {"db"}, "The current index of the shadow WAL"),
    "shadow_wal_size": ("gauge", {"db"}, "Current size of shadow WAL, in bytes"),
    "sync_count": ("counter", {"db"}, "Number of sync operations performed"),
    "sync_error_count": ("counter", {"db"}, "Number of sync errors that have occurred"),
    "sync_seconds": ("counter", {"db"}, "Time spent syncing shadow WAL, in seconds"),
    "checkpoint_count": ("counter", {"db", "mode"}, "Number of checkpoint operations performed"),
    "checkpoint_error_count": ("counter", {"db", "mode"}, "Number of checkpoint errors that have occurred"),
    "checkpoint_seconds": ("counter", {"db", "mode"}, "Time spent checkpointing WAL, in seconds"),
    "replica_wal_bytes": ("counter", {"db", "name"}, "The number wal bytes written"),
    "replica_wal_index": ("gauge", {"db", "name"}, "The current WAL index"),
    "replica_wal_offset": ("gauge", {"db", "name"}, "The current WAL offset"),
    "replica_validation_total": ("counter", {"db", "name", "status"}, "The number of validations performed"),
    "replica_operation_total": (
        "counter",
        {"replica_type", "operation"},
        "The number of replica operations performed",
    ),
    "replica_operation_bytes": (
        "counter",
        {"replica_type", "operation"},
        "The number of bytes used by replica operations",
    ),
}
"""The metrics of 0.3.13."""

SEED = {"replica_snapshot_total": ("gauge", {"db", "name"}, "The current number of snapshots")}

OFFICIAL_05 = {
    "txid": ("gauge", {"db"}, "The current transaction ID"),
    "disk_full": ("gauge", {"db"}, "Whether replication is paused because the local disk is full"),
    "replica_operation_duration_seconds": (
        "histogram",
        {"replica_type", "operation"},
        "Duration of replica operations by type and operation",
    ),
    "replica_operation_errors_total": (
        "counter",
        {"replica_type", "operation", "code"},
        "Number of replica operation errors by type, operation, and error code",
    ),
}
"""What 0.5 has in addition, as far as it makes sense here."""

OF_LTX = {"compaction_verify_error_count", "l0_retention_files_total"}
"""What 0.5 counts of levels and their compaction: there are none here."""

OURS = {
    "db_error": ("gauge", {"db"}, "Whether the database is not being replicated, for whatever reason"),
    "replica_error": ("gauge", {"db", "name"}, "Whether the last upload failed"),
    "replica_lag_seconds": (
        "gauge",
        {"db", "name"},
        "Age of the oldest commit that is not durable in the replica",
    ),
    "replica_lag_bytes": ("gauge", {"db", "name"}, "Bytes of WAL that the replica lacks"),
    "replica_last_upload_timestamp_seconds": (
        "gauge",
        {"db", "name"},
        "When something was last stored there, 0 if nothing yet",
    ),
    "replica_verified_timestamp_seconds": (
        "gauge",
        {"db", "name"},
        "When a validation last proved the replica good or bad",
    ),
    "replica_verified_ok": ("gauge", {"db", "name"}, "Whether that validation found the database in the replica"),
    "replica_requests_total": (
        "counter",
        {"db", "name", "class"},
        "Requests to the store, by the class in which services bill them",
    ),
    "replica_request_cost_dollars_total": (
        "counter",
        {"db", "name", "class"},
        "What these requests cost at list prices, in US dollars",
    ),
    "shadow_wal_bytes": ("gauge", {"db"}, "Bytes on disk that are kept for the replicas"),
    "wal_pinned_seconds": ("gauge", {"db"}, "For how long a reader has kept the WAL from restarting"),
    "follower_connected": ("gauge", {"db"}, "Whether the database follows its upstream now"),
    "follower_lag_seconds": (
        "gauge",
        {"db"},
        "For how long the database has not been following, 0 while it does",
    ),
    "seal_seconds_max": ("gauge", {"db"}, "Longest time for which writers were held back"),
    "request_budget_used": ("gauge", {"budget"}, "Requests counted in this month (UTC)"),
    "request_budget_max": ("gauge", {"budget"}, "Requests allowed in a month, 0 for no cap"),
}
ALL = OFFICIAL | SEED | OFFICIAL_05 | OURS

Scrape = dict[str, tuple[str, set[str], str]]


def scraped(text: str) -> Scrape:
    """Type, labels and help of each family of ours in a scrape, by name without prefix; exactly as written."""
    help_ = dict(re.findall(r"^# HELP litestream_(\w+) (.*)$", text, re.MULTILINE))
    type_ = dict(re.findall(r"^# TYPE litestream_(\w+) (\w+)$", text, re.MULTILINE))
    labels: dict[str, set[str]] = {}
    for name, inside in re.findall(r"^litestream_(\w+)\{(.*)\} ", text, re.MULTILINE):
        if name not in type_:  # a histogram's numbers have names of their own
            name = re.sub(r"_(bucket|sum|count)$", "", name)
            assert type_[name] == "histogram"
        labels.setdefault(name, set()).update(set(re.findall(r'(\w+)="', inside)) - {"le"})
    assert help_.keys() == type_.keys() == labels.keys()
    return {name: (type_[name], labels[name], help_[name]) for name in help_}


def filled() -> Metrics:
    """All families, with one number each."""
    metrics = Metrics()
    for family in metrics.families():
        number = family.labels(**dict.fromkeys(family.label_names, "x"))
        if isinstance(number, Distribution):
            number.observe(1)
        else:
            number.set(1)
    return metrics


def test_official_names() -> None:
    """Names, types, labels and help texts are the official ones, without an added `_total` or `_created`."""
    assert scraped(expose(filled()).decode()) == ALL


@pytest.mark.parametrize("version", [V03, V05])
def test_scrape_of_the_official_program(version: str, tmp_path: Path) -> None:
    """Every metric that the official programs really serve is in our list as it is there, but for those of LTX."""
    database = tmp_path / "app.db"
    connection = sqlite3.connect(database)
    connection.executescript("PRAGMA journal_mode=wal; CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    connection.close()
    config = tmp_path / "litestream.yml"
    port = 20000 + time.monotonic_ns() % 10000
    validation = "        validation-interval: 1s\n" if version == V03 else ""
    config.write_text(
        f"addr: 127.0.0.1:{port}\ndbs:\n  - path: {database}\n    checkpoint-interval: 1s\n    replicas:\n"
        f"      - type: file\n        path: {tmp_path / 'replica'}\n{validation}"
    )
    late = ["checkpoint_seconds", "sync_seconds"]
    late += ["replica_validation_total", "replica_wal_offset", "shadow_wal_size"] if version == V03 else ["disk_full"]
    with subprocess.Popen(
        [official(version).binary, "replicate", "-config", config],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            text = _wait_for(f"http://127.0.0.1:{port}/metrics", lambda text: all(name in text for name in late))
        finally:
            process.kill()
    found = scraped(text)
    assert len(found) >= 11
    known = OFFICIAL | (OFFICIAL_05 if version == V05 else {})
    assert {name: known[name] for name in found.keys() - OF_LTX} == {
        name: value for name, value in found.items() if name not in OF_LTX
    }


def _wait_for(url: str, condition: Callable[[str], bool]) -> str:
    text = ""
    for _ in range(150):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            pass
        if condition(text):
            return text
        time.sleep(0.1)
    raise AssertionError(text)


def test_values_and_labels_read_back() -> None:
    """Odd labels and all kinds of numbers come out of a Prometheus parser as they went in."""
    metrics = Metrics()
    paths = ['/a "b"\\n\n/c.db', "/100%.db", "/é.db"]
    numbers = [0.0, 1.0, 123456789012.0, 0.25, 1e-9, -3.0, float("inf"), float("-inf")]
    for path in paths:
        metrics.db_size.labels(db=path).set(1)
    for number in numbers:
        metrics.wal_size.labels(db=str(number)).set(number)
    metrics.db_size.labels(db="/\udcff.db").set(2)
    families = {family.name: family for family in text_string_to_metric_families(expose(metrics).decode())}
    assert {sample.labels["db"] for sample in families["litestream_db_size"].samples} == {*paths, r"/\udcff.db"}
    assert {s.labels["db"]: s.value for s in families["litestream_wal_size"].samples} == {str(n): n for n in numbers}


def test_counting() -> None:
    """Counters only go up, by threads at once; labels must be the family's own; what is removed is not shown."""
    metrics = Metrics()
    value = metrics.sync_count.labels(db="x")

    def count() -> None:
        for _ in range(2000):
            value.inc()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.sync_count.labels(db="x").value == 8000
    with pytest.raises(ValueError, match="cannot go down"):
        value.inc(-1)
    with pytest.raises(ValueError, match="has the labels db, not name"):
        metrics.sync_count.labels(name="x")
    for mode in ("PASSIVE", "SEAL"):
        metrics.checkpoint_count.labels(db="x", mode=mode).inc()
    metrics.checkpoint_count.labels(db="y", mode="SEAL").inc()
    metrics.checkpoint_count.remove(db="x")
    assert metrics.checkpoint_count.samples() == [(("y", "SEAL"), 1.0)]
    with pytest.raises(ValueError, match="already"):
        metrics.gauge("db_size", "again")


def test_what_is_gone_is_not_shown() -> None:
    """A database that is forgotten, or one of its replicas, leaves no number of any family; others keep theirs."""
    metrics = Metrics()
    databases = ("/a", "/a(s3)", "/b")

    def everything(path: str, name: str) -> None:
        for family in metrics.families():
            labels = {**dict.fromkeys(family.label_names, "x"), "db": path, "name": name}
            labels["budget"] = budget_name(path, name)
            family.labels(**{label: labels[label] for label in family.label_names})

    everything("/b", "s3")
    before = metrics_text(metrics)
    everything("/b", "sftp")
    metrics.forget_replica("/b", "sftp")
    assert metrics_text(metrics) == before
    for path in databases[:2]:
        everything(path, "s3")
    assert {path: metrics_text(metrics).count(f'"{path}') > 30 for path in databases} == dict.fromkeys(databases, True)
    for path in databases[:2]:
        metrics.forget_replica(path, "s3")
        metrics.forget_database(path)
    assert metrics_text(metrics) == before


def test_documented() -> None:
    """docs/metrics.md has every metric of ours with its type and labels, and no other."""
    page = (Path(__file__).resolve().parent.parent / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \| ([`\w ]+) \|", page, re.MULTILINE)
    documented = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert documented == {name: (kind, labels) for name, (kind, labels, _) in ALL.items()}
    assert all(f"`litestream_{name}`" in page for name in OF_LTX)


def metrics_text(metrics: Metrics) -> str:
    """The exposition, without what the process says of itself."""
    return expose(metrics).decode().partition("# HELP python")[0]


async def test_a_large_scrape_holds_nobody_up() -> None:
    """A scrape of 1,000 databases is made in pieces: others have their turn at least every 50 ms, and it is the same
    text; a database that goes meanwhile is left out."""
    metrics = Metrics()
    paths = [f"/var/lib/app/customers/{number:04}.db" for number in range(1000)]
    stops = []
    for path in paths:

        def collect(path: str = path) -> None:
            for family in metrics.families():
                if isinstance(family, Family) and set(family.label_names) <= {"db", "name"}:
                    labels = {"db": path, "name": "s3"}
                    family.labels(**{name: labels[name] for name in family.label_names}).set(1)

        stops.append(metrics.before_collect(collect))
    turns: list[float] = []

    async def others() -> None:
        while True:
            turns.append(time.thread_time())  # not the wall: other processes of a busy machine are no fault of ours
            await asyncio.sleep(0)

    gc.collect()
    gc.freeze()  # how long the collector stops depends on the heap of this process, which is pytest's
    beside = asyncio.create_task(others())
    await asyncio.sleep(0)
    scrape = asyncio.create_task(expose_in_turns(metrics))
    await asyncio.sleep(0)
    stops[-1]()
    text = (await scrape).decode()
    beside.cancel()
    gc.unfreeze()
    assert text.count("litestream_db_size{") == 999
    assert text.partition("# HELP python")[0] == metrics_text(metrics)
    longest = max(later - sooner for sooner, later in itertools.pairwise(turns))
    assert len(turns) > 5
    assert longest < 0.05


def test_histogram_text() -> None:
    """A histogram is written as the official program writes it: counts up to each bound, their sum, their number."""
    metrics = Metrics()
    seconds = metrics.histogram("took_seconds", "Time", ("kind",), (0.01, 1, 60))
    for number in (0.0, 0.01, 0.011, 1, 1.5, 61):
        seconds.labels(kind='a"b').observe(number)
    seconds.labels(kind="none")
    text = expose(metrics).decode()
    assert text[: text.index("# HELP python")] == (
        "# HELP litestream_took_seconds Time\n"
        "# TYPE litestream_took_seconds histogram\n"
        'litestream_took_seconds_bucket{kind="a\\"b",le="0.01"} 2\n'
        'litestream_took_seconds_bucket{kind="a\\"b",le="1"} 4\n'
        'litestream_took_seconds_bucket{kind="a\\"b",le="60"} 5\n'
        'litestream_took_seconds_bucket{kind="a\\"b",le="+Inf"} 6\n'
        'litestream_took_seconds_sum{kind="a\\"b"} 63.521\n'
        'litestream_took_seconds_count{kind="a\\"b"} 6\n'
        'litestream_took_seconds_bucket{kind="none",le="0.01"} 0\n'
        'litestream_took_seconds_bucket{kind="none",le="1"} 0\n'
        'litestream_took_seconds_bucket{kind="none",le="60"} 0\n'
        'litestream_took_seconds_bucket{kind="none",le="+Inf"} 0\n'
        'litestream_took_seconds_sum{kind="none"} 0\n'
        'litestream_took_seconds_count{kind="none"} 0\n'
    )


@given(st.lists(st.floats(0, 100)))
def test_histogram_reads_back(numbers: list[float]) -> None:
    """Any numbers: a Prometheus parser finds for each bound how many are not above it."""
    metrics = Metrics()
    for number in numbers:
        metrics.replica_operation_duration_seconds.labels(replica_type="s3", operation="PUT").observe(number)
    name = "litestream_replica_operation_duration_seconds"
    found = [family for family in text_string_to_metric_families(expose(metrics).decode()) if family.name == name]
    if not numbers:
        assert found == []
        return
    samples = found[0].samples
    buckets = {float(s.labels["le"]): s.value for s in samples if s.name.endswith("_bucket")}
    assert list(buckets) == [0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, float("inf")]
    assert buckets == {bound: sum(number <= bound for number in numbers) for bound in buckets}
    assert {s.name[len(name) :]: s.value for s in samples if "le" not in s.labels} == {
        "_sum": pytest.approx(sum(numbers)),
        "_count": len(numbers),
    }


def test_histogram_counts() -> None:
    """Threads at once lose nothing; bounds that are none are refused."""
    metrics = Metrics()
    seconds = metrics.histogram("took_seconds", "Time", (), (1, 2))
    value = seconds.labels()

    def observe() -> None:
        for i in range(3000):
            value.observe(i % 3)

    threads = [threading.Thread(target=observe) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (value.count, value.sum) == (12000, 12000)
    seconds.remove()
    assert b"took" not in expose(metrics)
    for bounds in ((), (1, 1), (2, 1), (1, float("inf"))):
        with pytest.raises(ValueError, match="bounds are finite and ascend"):
            metrics.histogram("other", "Time", (), bounds)


def test_collectors() -> None:
    """What is kept elsewhere is asked for at each scrape, until it is no longer wanted."""
    metrics = Metrics()
    pinned = metrics.gauge("pinned", "Seconds")
    seconds = iter((2, 4))
    stop = metrics.before_collect(lambda: pinned.labels().set(next(seconds)))
    assert b"\nlitestream_pinned 2\n" in expose(metrics)
    assert b"\nlitestream_pinned 4\n" in expose(metrics)
    stop()
    assert b"\nlitestream_pinned 4\n" in expose(metrics)


def test_nothing_is_imported_early() -> None:
    """Counting, and importing the server, import neither prometheus_client nor the web libraries."""
    code = (
        "import sys, litestream.metrics, litestream.web, litestream.replica; litestream.metrics.Metrics();"
        "print(sorted({'prometheus_client', 'starlette', 'uvicorn', 'numpy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_process_metrics() -> None:
    """The process tells of itself, as the official one does."""
    text = expose(Metrics()).decode()
    assert "process_cpu_seconds_total " in text
    assert "process_open_fds " in text


async def _get(url: str) -> tuple[int, str, str]:
    def get() -> tuple[int, str, str]:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.headers["content-type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, "", ""

    return await asyncio.to_thread(get)


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
async def test_server(host: str) -> None:
    """`/metrics` is served on this host only unless another is named, anything else is not found."""
    metrics = filled()
    server = await serve_metrics(f"{host}:0", metrics)
    assert server.url.startswith(f"http://{host or 'localhost'}:")
    status, kind, text = await _get(server.url)
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert scraped(text) == ALL
    assert (await _get(server.url.replace("metrics", "other")))[0] == 404
    with pytest.raises(ConfigError, match=r'^addr: cannot listen on "127\.0\.0\.1:\d+": Address already in use$'):
        await serve_metrics(f"127.0.0.1:{server.url.split(':')[2].split('/')[0]}", metrics)
    await server.close()
    await server.close()
    with pytest.raises(OSError, match="refused"):
        await _get(server.url)


async def test_a_large_scrape_is_compressed() -> None:
    """Whoever accepts gzip gets it where that is worth while, and it is the same text."""
    metrics = filled()
    server = await serve_metrics("127.0.0.1:0", metrics)

    def get(accept: str) -> tuple[str | None, bytes]:
        with urllib.request.urlopen(urllib.request.Request(server.url, headers={"Accept-Encoding": accept})) as answer:
            return answer.headers["content-encoding"], answer.read()

    try:
        assert (await asyncio.to_thread(get, "gzip"))[0] is None
        for number in range(3000):
            metrics.db_size.labels(db=f"/{number}.db").set(number)
        kind, packed = await asyncio.to_thread(get, "gzip")
        plain = await asyncio.to_thread(get, "identity")
        assert (kind, plain[0]) == ("gzip", None)
        assert len(packed) < len(plain[1]) / 4
        assert scraped(gzip.decompress(packed).decode()) == scraped(plain[1].decode())
        assert b'db_size{db="/2999.db"} 2999\n' in gzip.decompress(packed)
    finally:
        await server.close()


def test_addresses() -> None:
    """The forms of an address; one without a port has the official text."""
    assert parse_addr(":9090") == ("localhost", 9090)
    assert parse_addr("0.0.0.0:9090") == ("0.0.0.0", 9090)
    assert parse_addr("[::1]:9090") == ("::1", 9090)
    for addr in ("localhost", "9090", "localhost:", "::1", "[::1]", ""):
        with pytest.raises(ConfigError, match=f'^must specify port for bind address: "{re.escape(addr)}"$'):
            parse_addr(addr)
    for addr in (":http", ":65536", ":-1", ":²"):
        with pytest.raises(ConfigError, match="must be a number"):
            parse_addr(addr)
