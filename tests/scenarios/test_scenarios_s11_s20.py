"""Scenarios S11 to S20: what stands in a WAL, and the shapes a database takes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import ledger, state, wal
from helpers.app import App, AppError
from helpers.cli import OURS, Daemon, Database, wait_until, write_config
from helpers.rig import Rig
from litestream.core.layout import V03
from litestream.core.position import Pos
from litestream.core.wal import frame_count, frame_offset

NO_AUTOCHECKPOINT = ("wal_autocheckpoint=0",)


@pytest.mark.parametrize("end", ["ROLLBACK", "COMMIT"])
@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
def test_s11_spilled_uncommitted_frames(rig: Rig, app: App, end: str, restart: bool) -> None:
    """Frames of a transaction that is larger than the cache are published when it commits, and never otherwise."""
    app.create(rig.db, pragmas=NO_AUTOCHECKPOINT).ledger(5)
    daemon = rig.start()
    rig.reach(5)
    before = state.source(rig.db)
    committed = wal.index(rig.db).frames
    app.spill()
    assert wal.size(rig.db) > (committed + 100) * 4096
    if restart:
        daemon.kill()
        rig.start()
        daemon.wait_for_log("app.db")
    time.sleep(0.5)
    assert rig.restored_n() == 5
    assert state.read(rig.out) == before
    app.sql(end)
    n = app.ledger(2)
    rig.reach(n)
    rig.converge()
    assert len(rig.generations()) == 1, daemon.text()


def many(folder: Path, names: list[str]) -> list[Database]:
    """Databases with a replica each."""
    return [Database(folder / f"{name}.db", [folder / f"replica-{name}"]) for name in names]


def converge(database: Database, out: Path) -> state.State:
    replica = database.replicas[0]
    assert isinstance(replica, Path)
    return OURS.converge(database.path, replica, out)


def test_s12_torn_tail(tmp_path: Path, app: App, daemons: Callable[..., Daemon], apps: Callable[[], App]) -> None:
    """A WAL cut anywhere in its last frame, or with a flipped byte in any frame, counts up to its last good commit."""
    rnd = random.Random(12)
    names = [f"cut{at}" for at in (1, 7, 8, 23, 24, 25, 2000, 4119)] + [f"flip{frame}" for frame in (1, 2, 3, 5)]
    databases = many(tmp_path, names)
    daemon = daemons(write_config(tmp_path / "c.yml", databases))
    for name, database in zip(names, databases, strict=True):
        app.create(database.path, pragmas=NO_AUTOCHECKPOINT, name=name).ledger(10, name=name)
    daemon.start()
    for database in databases:
        converge(database, tmp_path / "out.db")
    assert daemon.stop() == 0
    for name in names:
        app.ledger(3, name=name)
    frames = [wal.index(database.path).frames for database in databases]
    app.kill()
    for name, database, count in zip(names, databases, frames, strict=True):
        damage(database.path, name, count, rnd)
    daemon.start()
    later = apps()
    for name, database in zip(names, databases, strict=True):
        converge(database, tmp_path / "out.db")
        assert 10 <= ledger.check(tmp_path / "out.db") < 13, name
        later.open(database.path, name=name).ledger(2, name=name)
        converge(database, tmp_path / "out.db")


def damage(db: Path, name: str, frames: int, rnd: random.Random) -> None:
    """Cut the last frame to cutN bytes, or flip a byte of the flipN-th frame from the end; drop the wal-index."""
    path = wal.beside(db, "-wal")
    raw = bytearray(path.read_bytes())
    if name.startswith("cut"):
        raw = raw[: 32 + (frames - 1) * 4120 + int(name[3:])]
    else:
        raw[32 + (frames - int(name[4:])) * 4120 + rnd.randrange(4120)] ^= 1 << rnd.randrange(8)
    path.write_bytes(raw)
    wal.beside(db, "-shm").unlink()


def test_s13_power_loss_replica_ahead(rig: Rig, app: App, apps: Callable[[], App]) -> None:
    """The WAL lost a tail that R had shipped, and other commits follow under the same salts: both histories restore."""
    app.create(rig.db, pragmas=NO_AUTOCHECKPOINT).ledger(10)
    daemon = rig.start()
    kept = wal.size(rig.db)
    app.ledger(8)
    rig.reach(18)
    daemon.kill()
    app.kill()
    path = wal.beside(rig.db, "-wal")
    salts = wal.header(rig.db)
    path.write_bytes(path.read_bytes()[:kept])
    wal.beside(rig.db, "-shm").unlink()
    after = apps().open(rig.db, pragmas=NO_AUTOCHECKPOINT)
    assert after.one("SELECT max(n) FROM ledger") == 10
    after.sql("CREATE TABLE fork(x)")
    after.ledger(6)
    assert wal.header(rig.db) == salts
    rig.start()
    generations = rig.wait_generations(2)
    rig.converge()
    assert rig.restored_n() == 16
    assert rig.restored_n("-generation", generations[0]) == 18
    after.ledger(3)
    rig.converge()


@pytest.mark.parametrize("how", ["VACUUM", "auto_vacuum=FULL", "auto_vacuum=INCREMENTAL"])
def test_s14_database_shrinks(rig: Rig, app: App, how: str) -> None:
    """A database that became smaller is restored at its new size, without stale pages."""
    app.create(rig.db, pragmas=[how] if how != "VACUUM" else [])
    app.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
    for _ in range(300):
        app.sql("INSERT INTO t(body) VALUES(randomblob(3000))")
    rig.start()
    before = rig.converge()
    app.sql("DELETE FROM t WHERE id > 20")
    if how == "VACUUM":
        app.sql("VACUUM")
    elif how == "auto_vacuum=INCREMENTAL":
        rig.converge()
        app.script("PRAGMA incremental_vacuum(100)")
        rig.converge()
        app.script("PRAGMA incremental_vacuum")
    after = rig.converge()
    assert after.page_count < before.page_count / 2
    assert rig.out.stat().st_size == after.page_count * 4096
    app.ledger(3)
    rig.converge()


FILL = (
    "WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM k WHERE i<300) "
    "INSERT INTO {} SELECT zeroblob(3000) FROM k"
)


@pytest.mark.parametrize("cache", [-2000, 5], ids=["cached", "spilling"])
def test_s15_database_grows_in_one_commit(rig: Rig, app: App, cache: int) -> None:
    """Pages that appear, and may be freed again, within one transaction are restored to the byte."""
    growth = [
        ["CREATE TABLE a(x)", FILL.format("a"), "DELETE FROM a WHERE rowid <= 250"],
        ["CREATE TABLE u(x)", FILL.format("u"), "INSERT INTO a VALUES(1)", "DROP TABLE u"],
        [
            "INSERT INTO a VALUES(zeroblob(400000))",
            "INSERT INTO a VALUES(zeroblob(9000))",
            "DELETE FROM a WHERE rowid=1",
        ],
        [FILL.format("a"), "DELETE FROM a"],
    ]
    app.create(rig.db, pragmas=[*NO_AUTOCHECKPOINT, f"cache_size={cache}"])
    daemon = rig.start()
    rig.reach(0)
    for statements in growth:
        app.sql("BEGIN")
        for statement in statements:
            app.sql(statement)
        app.sql("COMMIT")
        rig.converge()
    assert len(rig.generations()) == 1, daemon.text()


def test_s16_page_sizes(tmp_path: Path, app: App, daemons: Callable[..., Daemon]) -> None:
    """Every page size from 512 to 65536 is replicated, through checkpoints and VACUUM."""
    sizes = [512 << shift for shift in range(8)]
    databases = many(tmp_path, [str(size) for size in sizes])
    for database in databases:
        database.options["min-checkpoint-page-count"] = 30
    for size, database in zip(sizes, databases, strict=True):
        app.create(database.path, pragmas=[f"page_size={size}"], name=str(size)).ledger(20, name=str(size))
    daemon = daemons(write_config(tmp_path / "c.yml", databases, sync="50ms")).start()
    for size, database in zip(sizes, databases, strict=True):
        daemon.wait_for_objects(tmp_path / f"replica-{size}")
        app.ledger(60, name=str(size))
        app.sql("VACUUM", name=str(size))
        app.ledger(5, name=str(size))
        assert converge(database, tmp_path / "out.db").page_size == size


def test_s16_big_endian_wal(rig: Rig, app: App, apps: Callable[[], App]) -> None:
    """A WAL with the big-endian magic, which SQLite continues as such, is read and continued."""
    app.create(rig.db, pragmas=NO_AUTOCHECKPOINT).ledger(25)
    app.kill()
    path = wal.beside(rig.db, "-wal")
    path.write_bytes(wal.to_big_endian(path.read_bytes()))
    wal.beside(rig.db, "-shm").unlink()
    after = apps().open(rig.db, pragmas=NO_AUTOCHECKPOINT)
    daemon = rig.start()
    rig.reach(25)
    n = after.ledger(10)
    header = wal.header(rig.db)
    assert header is not None
    assert header.magic == 0x377F0683
    rig.reach(n)
    rig.converge()
    daemon.kill()
    n = after.ledger(10)
    rig.start()
    rig.reach(n)
    rig.converge()
    assert len(rig.generations()) == 1, daemon.text()


@pytest.mark.timeout(240)
def test_s16_lock_page_at_1_gib(rig: Rig, app: App) -> None:
    """A database that grows past 1 GiB, around SQLite's lock page, in one transaction is restored equal."""
    gib = 1 << 30
    app.open(rig.db, pragmas=["page_size=65536", "journal_mode=OFF", "synchronous=OFF"])
    app.sql("CREATE TABLE filler(body BLOB)")
    for _ in range(127):
        app.sql("INSERT INTO filler VALUES(zeroblob(?))", 8 << 20)
    app.sql("INSERT INTO filler VALUES(zeroblob(?))", 6 << 20)
    app.close()
    assert rig.db.stat().st_size < gib
    app.create(rig.db)
    daemon = rig.start()
    daemon.wait_for_log("snapshot written", timeout=90)
    app.sql("INSERT INTO filler VALUES(randomblob(?))", 4 << 20)
    app.ledger(2)
    assert daemon.stop() == 0  # with everything in the replica: one restore of this size is enough
    got = rig.converge(timeout=90)
    assert got.page_count * 65536 > gib + 65536
    assert len(rig.generations()) == 1, daemon.text()


def test_s17_wal_beyond_4_gib_by_arithmetic() -> None:
    """Offsets past 4 GiB count frames, have a name and come back from it."""
    for page_size in (512, 4096, 65536):
        frames = (5 << 30) // (page_size + 24)
        offset = frame_offset(frames, page_size)
        assert offset == 32 + frames * (page_size + 24) > 1 << 32
        assert frame_count(offset, page_size) == frames
        pos = Pos("00112233445566aa", 0x7FFFFFFF, offset)
        name = V03.parse(V03.wal_key(pos.generation, pos.index, pos.offset))
        assert name is not None
        assert (name.generation, name.index, name.offset) == (pos.generation, pos.index, pos.offset)  # type: ignore[union-attr]


def test_s18_leaving_wal_mode_is_refused_while_replicated(rig: Rig, app: App) -> None:
    """While R holds its reader, journal_mode=DELETE answers that the database is locked, and nothing changes."""
    app.create(rig.db).ledger(5)
    rig.start()
    rig.reach(5)
    app.sql("PRAGMA busy_timeout=100")
    with pytest.raises(AppError, match="locked"):
        app.sql("PRAGMA journal_mode=DELETE")
    assert app.one("PRAGMA journal_mode") == "wal"
    rig.reach(app.ledger())


@pytest.mark.parametrize(
    ("page_size", "hashed"),
    [(0, True), (0, False), (1024, True)],
    ids=["same page size", "without hashes", "other page size"],
)
def test_s18_wal_left_and_taken_up_again_while_down(rig: Rig, app: App, page_size: int, hashed: bool) -> None:
    """Written in rollback mode while R was down, the page size changed, then WAL again: equal.

    In a new generation, unless the hashes of the pages tell what has changed.
    """
    app.create(rig.db).ledger(10)
    daemon = rig.start()
    rig.reach(10)
    wait_until((rig.meta / "pages").exists, "the pages are hashed")
    assert daemon.stop() == 0
    if not hashed:
        (rig.meta / "pages").unlink()
    assert app.one("PRAGMA journal_mode=DELETE") == "delete"
    app.ledger(10)
    if page_size:
        app.sql(f"PRAGMA page_size={page_size}")
        app.sql("VACUUM")
    assert app.one("PRAGMA journal_mode=WAL") == "wal"
    app.ledger(3)
    rig.start()
    rig.reach(23)
    assert rig.converge().page_size == (page_size or 4096)
    assert len(rig.generations()) == (1 if hashed and not page_size else 2)


def test_s18_not_wal_is_reported_and_never_switched_back(rig: Rig, app: App) -> None:
    """A database that left WAL is an error in the log for as long as it is so; R follows once it is WAL again."""
    app.create(rig.db).ledger(10)
    daemon = rig.start()
    rig.reach(10)
    assert daemon.stop() == 0
    app.sql("PRAGMA journal_mode=DELETE")
    app.ledger(2)
    before = rig.db.read_bytes()
    seen = len(daemon.text())
    rig.start()
    daemon.wait_for_log(r"(?i)error.*wal", after=seen)
    time.sleep(1.5)
    assert rig.db.read_bytes() == before
    assert before[18:20] == b"\x01\x01"
    app.ledger(2)
    assert app.one("PRAGMA journal_mode=WAL") == "wal"
    app.ledger(2)
    rig.reach(16)
    rig.converge()


def test_s19_no_trace_in_the_source(rig: Rig, app: App) -> None:
    """Attaching, replicating and stopping changes no byte of the database or its WAL, and adds no table."""
    app.create(rig.db, pragmas=NO_AUTOCHECKPOINT).ledger(10)
    files = [rig.db, wal.beside(rig.db, "-wal")]
    questions = ["schema_version", "data_version", "user_version", "application_id", "page_count", "freelist_count"]

    def look() -> list[object]:
        answers = [app.one(f"PRAGMA {question}") for question in questions]
        return [*answers, app.sql("SELECT * FROM sqlite_master"), [path.read_bytes() for path in files]]

    before = look()
    daemon = rig.start()
    rig.reach(10)
    time.sleep(1.5)
    assert look() == before
    assert daemon.stop() == 0
    objects = rig.objects()
    assert look() == before
    rig.start()
    daemon.wait_for_log("app.db")
    time.sleep(1)
    assert daemon.stop() == 0
    assert look() == before
    assert rig.objects() == objects, "a stop and a start without writes upload nothing"


def test_s20_attached_databases_and_virtual_tables(tmp_path: Path, app: App, daemons: Callable[..., Daemon]) -> None:
    """A transaction over two attached databases, full-text and R-tree tables: both restore whole."""
    databases = many(tmp_path, ["one", "two"])
    for database in databases:
        app.open(database.path, pragmas=["journal_mode=WAL"])
        app.close()
    daemon = daemons(write_config(tmp_path / "c.yml", databases)).start()
    app.open(databases[0].path)
    app.sql("ATTACH ? AS two", str(databases[1].path))
    app.sql("CREATE VIRTUAL TABLE text USING fts5(body)")
    app.sql("CREATE VIRTUAL TABLE two.box USING rtree(id, x0, x1)")
    for number in range(30):
        app.sql("BEGIN")
        app.sql("INSERT INTO text VALUES('word ' || ? || ' shared')", number)
        app.sql("INSERT INTO two.box VALUES(?, ?, ?)", number, number, number + 1)
        app.sql("COMMIT")
    app.sql("INSERT INTO text(text) VALUES('optimize')")
    for database in databases:
        daemon.wait_for_objects(tmp_path / f"replica-{database.path.stem}")
        converge(database, tmp_path / f"out-{database.path.stem}.db")
    assert daemon.stop() == 0
    app.open(tmp_path / "out-one.db", name="restored")
    app.sql("INSERT INTO text(text) VALUES('integrity-check')", name="restored")
    assert app.one("SELECT count(*) FROM text WHERE text MATCH 'shared'", name="restored") == 30
    app.open(tmp_path / "out-two.db", name="box")
    assert app.one("SELECT count(*) FROM box WHERE x0 >= 10 AND x1 <= 20", name="box") == 10
    assert app.one("SELECT rtreecheck('box')", name="box") == "ok"


def test_s20_source_is_followed_while_it_is_read(rig: Rig, app: App, apps: Callable[[], App]) -> None:
    """The backup API and VACUUM INTO, which read the whole source, work beside R and disturb nothing."""
    app.create(rig.db).ledger(50)
    rig.start()
    rig.reach(50)
    copy = rig.folder / "copy.db"
    app.sql("VACUUM INTO ?", str(copy))
    assert ledger.check(copy) == 50
    rig.reach(apps().open(rig.db).ledger(5))
    rig.converge()
