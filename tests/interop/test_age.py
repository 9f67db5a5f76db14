"""Encrypted replicas both ways: the official 0.3.13 restores ours, and we its own, as far as the keys reach."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from helpers import batch, golden, ledger, state
from helpers.app import App
from helpers.batch import Batch, Life
from helpers.cli import OURS, Daemon, Database, Program, Yaml, generations, objects, wait_until, write_config
from helpers.rig import Rig
from litestream.client import ReplicaClient
from litestream.core.timestamps import parse_rfc3339
from litestream.errors import EncryptionError, StorageError
from litestream.restore import RestoreOptions, restore
from litestream.storage.age.encrypted import EncryptedStore
from litestream.storage.file import FileStore

pyrage: Any = pytest.importorskip("pyrage")

ALICE, BOB = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
MAGIC = b"age-encryption.org/v1\n"
SEEDS = batch.seeds(4000)[:2]
OFFICIAL_SEEDS = batch.seeds(2000)[:2]
"""Histories that are known to go well under 0.3.13, which can lock an application out."""


def public(identity: Any) -> str:  # noqa: ANN401 - pyrage publishes no types
    """The recipient that belongs to an identity."""
    return str(identity.to_public())


def keys(writes: Sequence[Any], reads: Sequence[Any]) -> dict[str, list[str]]:
    """The section `age` of a configuration."""
    section = {"recipients": [public(one) for one in writes], "identities": [str(one) for one in reads]}
    return {name: found for name, found in section.items() if found}


def config_of(
    folder: Path, lives: Sequence[Life], age: dict[str, list[str]], *, name: str = "age.yml", **options: Yaml
) -> Path:
    """A configuration of encrypted file replicas."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    databases = [
        Database(life.db, [{"type": "file", "path": str(life.replica), "age": dict(age)}], named) for life in lives
    ]
    return write_config(folder / name, databases, sync="50ms")


def client_of(replica: Path, *reads: Any) -> ReplicaClient:  # noqa: ANN401
    """Our reader of a replica."""
    return ReplicaClient(EncryptedStore(FileStore(replica), identities=[str(one) for one in reads]))


def restored_n(rig: Rig, identity: Any) -> int:  # noqa: ANN401
    """The ledger transaction that our restore gives."""
    restored(client_of(rig.replica, identity), rig.out)
    return ledger.check(rig.out)


def restored(client: ReplicaClient, out: Path, options: RestoreOptions | None = None) -> state.State:
    """What our restore gives."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{out}{suffix}").unlink(missing_ok=True)
    asyncio.run(restore([("file", client)], str(out), options=options))
    return state.read(out)


def assert_encrypted(replica: Path) -> None:
    """There are objects, and all of them are age files."""
    assert objects(replica)
    for path in objects(replica):
        assert path.read_bytes().startswith(MAGIC), path


@pytest.mark.parametrize("seeds", SEEDS, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
@pytest.mark.parametrize("reads", [True, False], ids=["both keys", "recipients only"])
def test_official_restores_what_we_encrypt(
    tmp_path: Path,
    apps: Callable[[], App],
    daemons: Callable[..., Daemon],
    official_v03: Program,
    seeds: list[int],
    reads: bool,
) -> None:
    """After random histories, stops and a kill -9, 0.3.13 and we restore ours equal, with the key of each recipient."""
    lives = Batch(tmp_path, seeds, apps)
    age = keys([ALICE, BOB], [ALICE] if reads else [])
    daemon = daemons(config_of(tmp_path, lives.lives, age, min_checkpoint_page_count=50, max_checkpoint_page_count=500))
    daemon.start()
    lives.run(6)
    lives.wait_replicated(daemon)
    daemon.kill()
    lives.run(9)
    daemon.start()
    lives.run(13)
    lives.wait_replicated(daemon)
    assert daemon.stop() == 0
    alice = config_of(tmp_path, lives.lives, keys([], [ALICE]), name="alice.yml")
    bob = config_of(tmp_path, lives.lives, keys([], [BOB]), name="bob.yml")
    for life in lives.lives:
        assert_encrypted(life.replica)
        want, out = state.source(life.db), tmp_path / "out.db"
        for one, config in ((ALICE, alice), (BOB, bob)):
            assert official_v03.restored(life.db, out, config=config) == want, f"history {life.seed}"
            assert restored(client_of(life.replica, one), out) == want, f"history {life.seed}"
    first = lives.lives[0].db
    assert OURS.restored(first, tmp_path / "out.db", config=bob) == state.source(first)


def test_restart_continues_the_generation(rig: Rig, app: App) -> None:
    """After stops a replicator goes on in the same generation, whether or not it can read what it wrote."""
    app.create(rig.db)
    for reads in ([ALICE], []):
        rig.start(replica={"age": dict(keys([ALICE], reads))})
        n = app.ledger(5)
        rig.daemon.wait_until_ready()
        assert rig.daemon.stop() == 0
        assert restored_n(rig, ALICE) == n
    assert len(generations(rig.replica)) == 1
    assert_encrypted(rig.replica)


@pytest.mark.parametrize("before", [{}, {"age": dict(keys([BOB], [BOB]))}], ids=["plain", "other key"])
def test_new_key_begins_a_generation(rig: Rig, app: App, before: dict[str, Yaml]) -> None:
    """Where the new configuration cannot read what is there, a new generation begins, all of it for the new key; what
    is older stays as it was, and goes with retention.
    """
    app.create(rig.db)
    rig.start(replica=before or {"type": "file"})
    app.ledger(3)
    rig.daemon.wait_until_ready()
    assert rig.daemon.stop() == 0
    old = {path: path.read_bytes() for path in objects(rig.replica)}
    rig.start(replica={"age": dict(keys([ALICE], [ALICE]))})
    n = app.ledger(3)
    wait_until(lambda: len(generations(rig.replica)) == 2, rig.daemon.text)
    assert rig.daemon.stop() == 0
    new = set(objects(rig.replica)) - set(old)
    assert {path: path.read_bytes() for path in old} == old
    for path in new:
        assert pyrage.decrypt(path.read_bytes(), [ALICE]).startswith(b"\x04\x22\x4d\x18")
    assert restored_n(rig, ALICE) == n
    rig.start(replica={"age": dict(keys([ALICE], [ALICE])), "retention": "1s", "retention-check-interval": "200ms"})
    wait_until(lambda: not any(path.exists() for path in old), rig.daemon.text)
    assert rig.daemon.stop() == 0
    assert restored_n(rig, ALICE) == n


@pytest.mark.parametrize(
    "age",
    [
        {"recipient": [public(ALICE)], "identities": [str(ALICE)]},
        {"identities": [str(ALICE)]},
        {"recipients": [public(ALICE)[:-1]]},
        {"recipients": [""]},
        {"recipients": []},
        {},
    ],
    ids=["misspelt key", "no recipients", "misspelt recipient", "unset variable", "empty list", "empty section"],
)
def test_nothing_is_written_unencrypted(rig: Rig, app: App, age: dict[str, Yaml]) -> None:
    """Whatever is wrong with the section, the replicator does not start; it says what is wrong, and no secret."""
    app.create(rig.db).ledger(5)
    daemon = rig.start(replica={"age": age})
    assert daemon.wait() == 1
    assert "recipients" in daemon.text()
    assert str(ALICE) not in daemon.text()
    assert not rig.replica.exists()


@pytest.mark.parametrize("seeds", OFFICIAL_SEEDS, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_we_restore_what_the_official_program_encrypts(
    tmp_path: Path, apps: Callable[[], App], daemons: Callable[..., Daemon], official_v03: Program, seeds: list[int]
) -> None:
    """Random histories under 0.3.13 with age: ours equals the database at the end, and at each mark."""
    lives = Batch(tmp_path, seeds, apps)
    config = config_of(
        tmp_path,
        lives.lives,
        keys([ALICE], [ALICE]),
        monitor_interval="30ms",
        min_checkpoint_page_count=50,
        max_checkpoint_page_count=500,
    )
    daemon = daemons(config, program=official_v03).start()
    marks: dict[int, list[tuple[str, state.State]]] = {seed: [] for seed in seeds}
    for last in (6, 11, 16):
        lives.run(last)
        caught_up = [life for life in lives.lives if reaches(official_v03, life, config, tmp_path / "out.db")]
        # 0.3.13 now and then leaves the newest commit in a WAL of 64 KiB pages until the next one comes.
        assert len(caught_up) >= len(lives.lives) - 2
        time.sleep(0.02)
        at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        for life in caught_up:
            marks[life.seed].append((at, state.source(life.db).without_pages()))
        time.sleep(0.02)
    lives.close()
    daemon.stop()
    for life in lives.lives:
        assert_encrypted(life.replica)
        out = tmp_path / "out.db"
        assert restored(client_of(life.replica, ALICE), out) == official_v03.restored(life.db, out, config=config)
        for at, want in marks[life.seed]:
            options = RestoreOptions(timestamp_ns=parse_rfc3339(at))
            got = restored(client_of(life.replica, ALICE), out, options)
            assert got.without_pages() == want, f"history {life.seed} at {at}"


def reaches(official: Program, life: Life, config: Path, out: Path) -> bool:
    """Whether the official program's replica comes to hold everything."""
    want = state.source(life.db).without_pages()
    for _ in range(40):
        if official.restore(life.db, out, config=config).code == 0 and state.read(out).without_pages() == want:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def encrypted(tmp_path: Path) -> golden.Golden:
    """A replica of 0.3.13, each object of it encrypted for Alice, with the objects' times as they were."""
    archive = golden.unpack("v0.3.13", tmp_path)
    for path in objects(archive.replica):
        status = path.stat()
        path.write_bytes(pyrage.encrypt(path.read_bytes(), [ALICE.to_public()]))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return archive


def test_recorded_replica_encrypted(encrypted: golden.Golden, tmp_path: Path) -> None:
    """A recorded replica restores at every mark, encrypted as it is unencrypted."""
    out = tmp_path / "out.db"
    restored(client_of(encrypted.replica, ALICE), out)
    assert state.dump_sha256(out) == encrypted.final.dump_sha256
    for mark in encrypted.marks:
        restored(client_of(encrypted.replica, BOB, ALICE), out, RestoreOptions(timestamp_ns=parse_rfc3339(mark.time)))
        assert state.dump_sha256(out) == mark.dump_sha256, mark.time


def test_restore_without_the_key(encrypted: golden.Golden, tmp_path: Path) -> None:
    """Without age, with another identity, or with recipients alone, one line says which object, and what to set."""
    out = tmp_path / "out.db"
    generation = generations(encrypted.replica)[-1]
    with pytest.raises(EncryptionError, match=r"is encrypted with age: set age\.identities") as caught:
        restored(ReplicaClient(FileStore(encrypted.replica)), out)
    assert caught.value.key.startswith(f"generations/{generation}/")
    assert "\n" not in str(caught.value)
    with pytest.raises(EncryptionError, match=r"for others than age\.identities: add the identity") as caught:
        restored(client_of(encrypted.replica, BOB), out)
    assert caught.value.key.startswith(f"generations/{generation}/")
    blind = ReplicaClient(EncryptedStore(FileStore(encrypted.replica), recipients=[public(ALICE)]))
    with pytest.raises(StorageError, match=r"set age\.identities to read") as blinded:
        restored(blind, out)
    assert blinded.value.code == "NoIdentity"
    result = OURS.restore(f"file://{encrypted.replica}", out)
    assert result.code == 1
    assert "set age.identities" in result.err.splitlines()[-1], result.text
    assert not out.exists()


def test_restore_of_plain_objects_with_a_key(tmp_path: Path) -> None:
    """A replica that is not encrypted is refused where age is configured: anybody could have put it there."""
    archive = golden.unpack("v0.3.13", tmp_path)
    with pytest.raises(EncryptionError, match="is not encrypted, though age is configured"):
        restored(client_of(archive.replica, ALICE), tmp_path / "out.db")
    assert not (tmp_path / "out.db").exists()


def test_damage_in_an_encrypted_replica(encrypted: golden.Golden, tmp_path: Path) -> None:
    """One changed byte in a segment is an error that names the segment, and what could be restored instead."""
    generation = generations(encrypted.replica)[-1]
    damaged = objects(encrypted.replica / "generations" / generation / "wal")[-1]
    raw = bytearray(damaged.read_bytes())
    raw[-1] ^= 1
    damaged.write_bytes(raw)
    key = damaged.relative_to(encrypted.replica)
    with pytest.raises(Exception, match=f"^{key}: cannot be decrypted: it is damaged or cut short"):
        restored(client_of(encrypted.replica, ALICE), tmp_path / "out.db")
    assert not (tmp_path / "out.db").exists()
