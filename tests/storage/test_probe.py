"""What `probe` finds out about stores that do their work, and about those that do not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pyrage
import pytest

from helpers.faultstore import FOREVER, Fault, FaultStore
from litestream.client import ReplicaClient
from litestream.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from litestream.storage.age.encrypted import EncryptedStore
from litestream.storage.file import FileStore
from litestream.storage.keys import is_key
from litestream.storage.memory import MemoryStore
from litestream.storage.probe import NEEDED, PREFIX, Finding, Operation, Status, is_usable, probe
from litestream.storage.protocol import ObjectInfo, Store
from litestream.storage.rights import right_for
from litestream.storage.wrappers.wrapper import Wrapper

OBJECT = "generations/0123456789abcdef/snapshots/00000000.snapshot.lz4"


def denied(operation: str, match: str = "") -> Fault:
    """This operation is refused for ever."""
    error = StorageError(f"cannot {operation}: AccessDenied", permanent=True, code="AccessDenied")
    return Fault(operation, match=match, times=FOREVER, error=error)  # type: ignore[arg-type]


async def found(store: Store, **options: Store) -> dict[Operation, Finding]:
    """The findings by operation; each operation once, in order."""
    findings = await probe(store, rounds=2, **options)
    names = [finding.operation for finding in findings]
    assert names == [operation for operation in Operation if operation in names]
    return {finding.operation: finding for finding in findings}


def statuses(findings: dict[Operation, Finding]) -> dict[str, str]:
    return {str(name): str(finding.status) for name, finding in findings.items() if finding.status != "works"}


@pytest.fixture
def memory() -> MemoryStore:
    """Empty."""
    return MemoryStore()


@pytest.fixture
def faults(memory: MemoryStore) -> FaultStore:
    """The same store, with faults."""
    return FaultStore(memory)


async def test_a_store_that_does_everything(memory: MemoryStore, tmp_path: Path) -> None:
    """Everything works and took some time, nothing is left, and no directory beside the root."""
    for store in (memory, FileStore(tmp_path / "replica")):
        findings = await found(store)
        assert statuses(findings) == {}
        assert set(findings) == set(Operation) - {Operation.UPLOADS, Operation.ENCRYPTION}
        assert all(finding.seconds is not None and finding.seconds > 0 for finding in findings.values())
        assert is_usable(list(findings.values()))
        assert await store.list("") == []
    assert os.listdir(tmp_path / "replica") == []


async def test_the_probe_object_is_nothing_to_a_replica(faults: FaultStore) -> None:
    """Its key is a valid one that no listing of a replica and no restore sees."""
    faults.add(denied("delete"))
    await found(faults)
    (left,) = await faults.inner.list("")
    assert is_key(left.key) and left.key.startswith(PREFIX)
    client = ReplicaClient(faults)
    overview = await client.overview()
    assert (dict(overview), overview.has_ltx, await client.generations()) == ({}, False, [])


async def test_a_writer_that_must_not_delete(faults: FaultStore) -> None:
    """All but deleting works, it is usable, and one object stays, which is said; the delete is not tried again."""
    faults.add(denied("delete"))
    findings = await found(faults)
    assert statuses(findings) == {"delete": "denied", "gone after delete": "not tried"}
    assert is_usable(list(findings.values()))
    (left,) = await faults.inner.list("")
    assert f"{left.key} stays" in findings[Operation.DELETE].note
    assert faults.count("delete") == 1


async def test_a_writer_that_can_only_write(faults: FaultStore) -> None:
    """Each right that is missing is a finding of its own, and the rest is tried all the same."""
    faults.add(denied("get"), denied("list"), denied("delete"))
    findings = await found(faults)
    assert statuses(findings) == {
        "read": "denied",
        "read range": "denied",
        "list": "denied",
        "read absent": "denied",
        "delete": "denied",
        "gone after delete": "not tried",
    }
    assert findings[Operation.OVERWRITE].status is Status.WORKS
    assert not is_usable(list(findings.values()))


async def test_a_reader(faults: FaultStore) -> None:
    """Where writing is denied, reading is tried on the smallest object of the replica."""
    await faults.inner.put(OBJECT, b"x" * 10)
    await faults.inner.put(OBJECT.replace("00000000", "00000001"), b"x" * 20)
    faults.add(denied("put"))
    findings = await found(faults)
    assert statuses(findings) == {
        "write": "denied",
        "create only": "not tried",
        "overwrite": "not tried",
        "delete": "not tried",
        "gone after delete": "not tried",
    }
    assert OBJECT in findings[Operation.READ].note
    assert {key for operation, key in faults.calls if operation == "get" and "generations" in key} == {OBJECT}
    assert faults.count("delete") == 1  # the write may have been done all the same


async def test_a_reader_of_an_empty_replica(faults: FaultStore) -> None:
    """With nothing to read, reading is not said to work."""
    faults.add(denied("put"))
    findings = await found(faults)
    assert statuses(findings)["read"] == statuses(findings)["read range"] == "not tried"
    assert findings[Operation.LIST].status is Status.WORKS


@pytest.mark.parametrize("code", ["Timeout", "Connection", "NoSuchBucket", "SignatureDoesNotMatch"])
async def test_what_no_request_survives_is_tried_once(code: str, faults: FaultStore) -> None:
    """A server that does not answer, or a bucket that is not there, costs one attempt and not ten."""
    error = StorageError(f"cannot write: {code}", code=code)
    faults.add(Fault("*", times=FOREVER, error=error))
    findings = await found(faults)
    assert findings[Operation.WRITE].status == ("missing" if code == "NoSuchBucket" else "failed")
    assert set(statuses(findings).values()) <= {"missing", "failed", "not tried"}
    assert [operation for operation, _ in faults.calls] == ["put", "delete"]


@pytest.mark.parametrize("what", ["flip", "cut"])
async def test_other_bytes_are_a_failure(what: str, faults: FaultStore) -> None:
    """A store that gives back other bytes, or fewer, does not work."""
    faults.add(Fault("get", what, match=PREFIX, times=FOREVER))  # type: ignore[arg-type]
    findings = await found(faults)
    assert findings[Operation.READ].status is Status.FAILED
    assert "not what was written" in findings[Operation.READ].note
    assert not is_usable(list(findings.values()))


async def test_an_object_that_is_not_listed_is_missing(faults: FaultStore) -> None:
    """A listing without what was just written is told."""
    faults.add(Fault("list", "stale", match=PREFIX, times=FOREVER))
    assert statuses(await found(faults))["list"] == "missing"


class Careless(Wrapper):
    """A store that takes no notice of conditions and says nothing of it."""

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        return await self.inner.put(key, body)


class Looking(Wrapper):
    """A store that looks first, because its service has no conditions."""

    conditional = False


async def test_a_condition_that_is_ignored_is_found_out(memory: MemoryStore) -> None:
    """The condition is really sent, whoever ignores it is caught, and it is said why replicating is safe without."""
    findings = await found(Careless(memory))
    assert statuses(findings) == {"create only": "missing"}
    assert "ignores" in findings[Operation.CREATE].note
    assert "safe" in findings[Operation.CREATE].note
    assert is_usable(list(findings.values()))
    assert await memory.list("") == []


async def test_a_store_that_looks_first_is_not_taken_for_one_with_conditions(memory: MemoryStore) -> None:
    """A look is no condition; a second store that sends it shows whether the service has it."""
    findings = await found(Looking(memory))
    assert statuses(findings) == {"create only": "missing"}
    assert "no such condition" in findings[Operation.CREATE].note
    assert statuses(await found(Looking(memory), conditional=Careless(memory))) == {"create only": "missing"}
    enforced = await found(Looking(memory), conditional=memory)
    assert "conditional: true" in enforced[Operation.CREATE].note
    assert statuses(enforced) == {}


async def test_leftovers_of_earlier_runs_are_removed(memory: MemoryStore, tmp_path: Path) -> None:
    """Probe objects older than an hour go with ours; young ones and foreign ones stay."""
    store = FileStore(tmp_path)
    old, young, foreign = PREFIX + "0" * 32, PREFIX + "1" * 32, PREFIX + "notes.txt"
    for key in (old, young, foreign):
        await store.put(key, b"x")
        os.utime(tmp_path / key, (1, 1) if key != young else None)
    findings = await found(store)
    assert [info.key for info in await store.list("")] == [young, foreign]
    assert findings[Operation.DELETE].note == "1 of earlier runs too"


async def test_a_write_whose_answer_was_lost_leaves_nothing(faults: FaultStore) -> None:
    """What was stored although the write failed is removed."""
    faults.add(Fault("put", "lost"))
    assert statuses(await found(faults))["write"] == "failed"
    assert await faults.inner.list("") == []


async def test_interrupted_it_leaves_nothing(memory: MemoryStore) -> None:
    """Cancelled in the middle, it still removes its object."""
    reached = asyncio.Event()

    class Silent(Wrapper):
        async def list(self, prefix: str) -> list[ObjectInfo]:
            reached.set()
            await asyncio.Event().wait()
            return []

    task = asyncio.create_task(probe(Silent(memory)))
    await reached.wait()
    assert len(await memory.list("")) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await memory.list("") == []


async def test_objects_that_cannot_be_deleted_really(memory: MemoryStore) -> None:
    """A delete that is answered and not done is found out."""

    class Keeping(Wrapper):
        async def delete(self, keys: object) -> None:
            pass

    findings = await found(Keeping(memory))
    assert statuses(findings) == {"gone after delete": "failed"}


def identities() -> tuple[str, str]:
    """A recipient and its identity."""
    identity = pyrage.x25519.Identity.generate()
    return str(identity.to_public()), str(identity)


async def test_encryption_is_tried_by_itself(faults: FaultStore) -> None:
    """With age on, the store is tried underneath, and then what is stored is seen to be encrypted."""
    recipient, identity = identities()
    both = await found(EncryptedStore(faults, recipients=[recipient], identities=[identity]))
    assert statuses(both) == {}
    assert "can write and read" in both[Operation.ENCRYPTION].note
    assert await faults.inner.list("") == []

    writer = await found(EncryptedStore(faults, recipients=[recipient]))
    assert statuses(writer) == {}
    assert "can write and not read" in writer[Operation.ENCRYPTION].note

    reader = await found(EncryptedStore(faults, identities=[identity]))
    assert statuses(reader) == {"encryption": "missing"}
    assert "age.recipients" in reader[Operation.ENCRYPTION].note
    assert await faults.inner.list("") == []


async def test_encryption_that_is_none_is_found_out(memory: MemoryStore) -> None:
    """A wrapper that says that it encrypts and does not is a failure."""

    class Pretending(Wrapper):
        encrypted = True
        readable = True

    findings = await found(Pretending(memory))
    assert findings[Operation.ENCRYPTION].status is Status.FAILED
    assert not is_usable(list(findings.values()))


async def test_the_kinds_of_errors() -> None:
    """Only what says that a right is missing is "denied"."""

    class Failing(MemoryStore):
        error: Exception = ObjectNotFoundError("x")

        async def list(self, prefix: str) -> list[ObjectInfo]:
            raise self.error

    store = Failing()
    store.error = StorageError("no", code="AuthorizationPermissionMismatch")
    assert statuses(await found(store))["list"] == "denied"
    store.error = StorageError("no", code="Throttled")
    assert statuses(await found(store))["list"] == "failed"
    store.error = StorageError("no")
    store.error.__cause__ = PermissionError()
    assert statuses(await found(store))["list"] == "denied"


async def test_the_list_of_uploads_is_asked_for_where_there_is_one(memory: MemoryStore) -> None:
    """A right that is missing is told; a service that has no such list is no fault, and nobody needs it."""

    class Cleaning(MemoryStore):
        error: StorageError | None = None
        asked: float = 0.0

        async def clean_up(self, older_than: float = 0.0) -> int:
            self.asked = older_than
            if self.error is not None:
                raise self.error
            return 0

    store = Cleaning()
    assert (await found(Wrapper(store)))[Operation.UPLOADS].status is Status.WORKS
    assert store.asked == float("inf")  # nothing is ever so old: it only looks
    answers = (("AccessDenied", "denied", True), ("NoSuchUpload", "missing", False), ("Timeout", "failed", True))
    for code, status, fault in answers:
        store.error = StorageError("no", code=code)
        finding = (await found(store))[Operation.UPLOADS]
        assert (finding.status, finding.is_fault, finding.is_vital) == (status, fault, False)


async def test_bodies_differ_between_runs(memory: MemoryStore) -> None:
    """A probe object left by another run is never taken for ours: names and bytes are random."""
    seen: set[bytes] = set()

    class Watching(Wrapper):
        async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
            assert isinstance(body, bytes)
            seen.add(key.encode() + body)
            return await self.inner.put(key, body, create_only=create_only)

    await found(Watching(memory))
    first = len(seen)
    await found(Watching(memory))
    assert len(seen) == 2 * first


@pytest.mark.parametrize("kind", ["s3", "gs", "abs", "oss", "sftp", "webdav", "nats", "file"])
@pytest.mark.parametrize("operation", [Operation.WRITE, Operation.READ, Operation.LIST, Operation.DELETE])
def test_every_store_says_what_to_allow(kind: str, operation: Operation) -> None:
    """For each type there is a right or a setting for what is needed, without a placeholder left."""
    right = right_for(kind, operation, bucket="backups", path="app")
    assert right and "{" not in right


def test_rights_name_the_place() -> None:
    """The bucket and the path stand in what is to be allowed."""
    assert right_for("s3", Operation.WRITE, bucket="b", path="app") == "s3:PutObject on b/app/*"
    assert right_for("s3", Operation.LIST, bucket="b") == "s3:ListBucket on b, where s3:prefix is like *"
    assert right_for("file", Operation.DELETE, path="/backup").startswith("write permission on /backup ")
    assert right_for("other", Operation.DELETE) == ""


def test_everything_has_a_use_or_is_optional() -> None:
    """Each operation says what needs it."""
    assert set(NEEDED) == set(Operation)
    assert {use for uses in NEEDED.values() for use in uses} == {"replicate", "restore", "retention"}


async def test_existing_objects_are_never_touched(faults: FaultStore) -> None:
    """Nothing but probe objects is written or deleted."""
    await faults.inner.put(OBJECT, b"x")
    await found(faults)
    assert all(key.startswith(PREFIX) for operation, key in faults.calls if operation in {"put", "delete"})
    assert [info.key for info in await faults.inner.list("")] == [OBJECT]
    with pytest.raises(ObjectExistsError):
        await faults.inner.put(OBJECT, b"y", create_only=True)
