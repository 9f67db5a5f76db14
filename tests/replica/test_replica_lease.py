"""The lease of a replica: who may store, who stops, and what it costs."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.clock import Clock
from helpers.fakedb import FakeDB
from helpers.faultstore import Fault, FaultStore
from litestream.client import ReplicaClient
from litestream.core.lease import TERM, WAIT, Record, lease_key, released_key
from litestream.errors import LeaseLostError, StorageError
from litestream.metrics import Metrics
from litestream.replica import Replica
from litestream.replica.lease import Keeper
from litestream.replica.log import ReplicaLogger
from litestream.storage.age.encrypted import EncryptedStore
from litestream.storage.memory import MemoryStore
from litestream.storage.protocol import Store


@dataclass
class Host:
    """A host with a local state that outlives its processes."""

    name: str
    store: Store
    clock: Clock
    db: FakeDB = field(default_factory=FakeDB)
    dead: set[str] = field(default_factory=set)

    def process(self, **options: bool) -> Keeper:
        logger = ReplicaLogger(logging.getLogger("test"), self.db.path, "r")
        return Keeper(
            self.db,
            ReplicaClient(self.store),
            "r",
            logger,
            host=self.name,
            clock=self.clock,
            sleep=self.clock.sleep,
            ended=lambda record: record.token in self.dead,
            **options,
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> FaultStore:
    return FaultStore(MemoryStore())


@pytest.fixture
def a(store: FaultStore, clock: Clock) -> Host:
    return Host("a", store, clock)


@pytest.fixture
def b(store: FaultStore, clock: Clock) -> Host:
    return Host("b", store, clock)


async def keys(store: Store) -> list[str]:
    return [info.key for info in await store.list("lease/")]


async def test_a_lease_costs_two_requests_at_first_and_then_one_per_term(
    a: Host, store: FaultStore, clock: Clock
) -> None:
    """A listing and a put; then nothing within a term, one listing after it however long that was, a put at the end."""
    keeper = a.process()
    await keeper.hold()
    assert [name for name, _ in store.calls] == ["list", "put"]
    for _ in range(10):
        clock.now += TERM / 11
        await keeper.hold()
    assert len(store.calls) == 2
    clock.now += 86400
    await keeper.hold()
    assert [name for name, _ in store.calls] == ["list", "put", "list"]
    await keeper.release()
    assert store.calls[3:] == [("put", released_key(1))]
    assert clock.slept == []


async def test_a_second_host_waits_and_the_first_stops(
    a: Host, b: Host, store: FaultStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The newcomer stores nothing until the term of the other is over; that one stops then, and names who it was."""
    first, second = a.process(), b.process()
    await first.hold()
    await second.hold()
    assert clock.slept == [WAIT]
    assert "taking the replica over from host a (process" in caplog.text
    with pytest.raises(
        LeaseLostError, match=r"^lease lost to host b \(process \d+\), epoch 2: this replica is stopped"
    ):
        await first.hold()
    before = len(store.calls)
    with pytest.raises(LeaseLostError):
        await first.hold()
    with pytest.raises(LeaseLostError):
        first.check()
    await first.release()
    assert len(store.calls) == before
    await second.hold()


async def test_a_restart_goes_on_at_once(a: Host, b: Host, clock: Clock) -> None:
    """After a kill on the same host, and after an orderly end on any host, nobody waits."""
    await a.process().hold()
    again = a.process()
    await again.hold()
    assert again.epoch == 2
    await again.release()
    await b.process().hold()
    assert clock.slept == []


async def test_a_process_that_is_known_dead_is_not_waited_for(
    a: Host, b: Host, store: FaultStore, clock: Clock
) -> None:
    """Where the holder ran on this machine and is no more, another database's process goes on at once."""
    await a.process().hold()
    record = Record.parse(b"".join([chunk async for chunk in store.get(lease_key(1))]))
    assert record is not None
    b.dead.add(record.token)
    await b.process().hold()
    assert clock.slept == []


async def test_who_was_overtaken_while_away_does_not_take_it_back(a: Host, b: Host, clock: Clock) -> None:
    """The old host, back after its replacement took over, is the loser; until that one has ended, or a reset here."""
    await a.process().hold()
    second = b.process()
    await second.hold()
    back = a.process()
    with pytest.raises(LeaseLostError, match="lease lost to host b"):
        await back.hold()
    with pytest.raises(LeaseLostError):
        await a.process().hold()
    a.db.notes.clear()  # litestream reset
    await back.hold()
    assert (back.epoch, clock.slept) == (3, [WAIT, WAIT])
    with pytest.raises(LeaseLostError, match="lease lost to host a"):
        await second.hold()


async def test_after_the_winner_has_ended_the_loser_may_start_again(a: Host, b: Host, clock: Clock) -> None:
    """An orderly end of the winner gives the replica back."""
    await a.process().hold()
    second = b.process()
    await second.hold()
    await second.release()
    clock.slept.clear()
    await a.process().hold()
    assert clock.slept == []


async def test_a_copy_of_the_local_state_is_another_host(a: Host, store: FaultStore, clock: Clock) -> None:
    """A cloned machine has the note as well; it waits, and the original stops."""
    original = a.process()
    await original.hold()
    clone = Host("clone", store, clock)
    clone.db.notes = dict(a.db.notes)
    await clone.process().hold()
    assert clock.slept == [WAIT]
    with pytest.raises(LeaseLostError):
        await original.hold()


async def test_killed_while_it_waits_it_waits_again(a: Host, b: Host, clock: Clock) -> None:
    """The wait is not got rid of by a restart."""
    await a.process().hold()
    waiting = b.process()

    async def killed(_: float) -> None:
        raise KeyboardInterrupt

    waiting._sleep = killed
    with pytest.raises(KeyboardInterrupt):
        await waiting.hold()
    await b.process().hold()
    assert clock.slept == [WAIT]


async def test_a_lost_answer_does_not_lose_the_lease(a: Host, store: FaultStore, clock: Clock) -> None:
    """The claim was stored and the answer was an error: the next try finds its own."""
    store.add(Fault("put", "lost", match="lease/"))
    keeper = a.process()
    with pytest.raises(StorageError):
        await keeper.hold()
    await keeper.hold()
    assert (keeper.epoch, clock.slept) == (1, [])


async def test_a_claim_that_comes_late_is_nobodys(a: Host, store: FaultStore, clock: Clock) -> None:
    """A create of a killed process is carried out after its successor's claim: it is below that, and means nothing."""
    store.add(Fault("put", match="lease/"))
    with pytest.raises(StorageError):
        await a.process().hold()
    successor = a.process()
    await successor.hold()
    assert successor.epoch == 2
    await store.put(lease_key(1), b"late\n", create_only=True)
    clock.now += 2 * TERM
    await successor.hold()


async def test_a_store_that_is_down_is_no_lost_lease(a: Host, store: FaultStore, clock: Clock) -> None:
    """Nothing is stored without a look, and it goes on once the store is back."""
    keeper = a.process()
    await keeper.hold()
    clock.now += TERM
    store.add(Fault("list"))
    with pytest.raises(StorageError):
        await keeper.hold()
    await keeper.hold()
    assert not keeper.lost


async def test_older_leases_are_deleted_where_that_is_allowed(a: Host, store: FaultStore) -> None:
    """One object is left; without the right to delete, or the wish, they pile up and nothing else happens."""
    for _ in range(3):
        keeper = a.process()
        await keeper.hold()
        await keeper.release()
    assert await keys(store) == [lease_key(3), released_key(3)]
    store.add(Fault("delete", times=9))
    await a.process().hold()
    deletes = store.count("delete")
    await a.process(tidy=False).hold()
    assert store.count("delete") == deletes
    assert await keys(store) == [lease_key(3), released_key(3), lease_key(4), lease_key(5)]


async def test_objects_that_somebody_deleted_are_claimed_anew(a: Host, store: FaultStore, clock: Clock) -> None:
    """A replica that was emptied under a running process is claimed again, with a higher epoch."""
    keeper = a.process()
    await keeper.hold()
    await store.delete(await keys(store))
    clock.now += TERM
    await keeper.hold()
    assert await keys(store) == [lease_key(2)]


async def test_the_end_is_not_held_up_by_a_store_that_is_down(a: Host, store: FaultStore) -> None:
    """A lease that cannot be given back is only waited for by the next host."""
    keeper = a.process()
    await keeper.hold()
    store.add(Fault("put", match="released"))
    await keeper.release()
    assert await keys(store) == [lease_key(1)]


async def test_leases_in_an_encrypted_store_that_can_only_be_written(clock: Clock) -> None:
    """Nobody's name is readable in the store; a restart goes on, a newcomer waits, the loser stops."""
    inner = MemoryStore()
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    stores = [EncryptedStore(inner, recipients=[recipient]) for _ in range(2)]
    a, b = Host("a", stores[0], clock), Host("b", stores[1], clock)
    await a.process().hold()
    again = a.process()
    await again.hold()
    assert clock.slept == []
    assert b'"host"' not in b"".join([chunk async for chunk in inner.get(lease_key(2))])
    await b.process().hold()
    assert clock.slept == [WAIT]
    with pytest.raises(LeaseLostError, match="lease lost to another host, epoch 3"):
        await again.hold()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32))
async def test_nobody_stores_after_somebody_with_a_higher_epoch_has(seed: int) -> None:
    """Random starts, kills, orderly ends, sleeps of a machine, resets, faults: whatever happens, the epochs of those
    who store never go back, but for what was just allowed.
    """
    rng, clock = random.Random(seed), Clock()
    store = FaultStore(MemoryStore())
    hosts = [Host(name, store, clock) for name in "abc"]
    running: dict[str, Keeper] = {}
    stored = 0
    for _ in range(80):
        clock.now += rng.choice([0, 0.1, 1, TERM / 2, TERM, WAIT, 3600])
        host = rng.choice(hosts)
        action = rng.choice(["store", "store", "store", "start", "kill", "end", "reset", "fault"])
        keeper = running.get(host.name)
        if action == "start" and keeper is None:
            running[host.name] = host.process()
        elif action in {"kill", "end"} and keeper is not None:
            if action == "end":
                await keeper.release()
            del running[host.name]
        elif action == "reset":
            host.db.notes.clear()
        elif action == "fault":
            store.add(Fault(rng.choice(["list", "put", "get"]), rng.choice(["fail", "lost"]), match="lease/"))
        elif action == "store" and keeper is not None:
            try:
                await keeper.hold()
            except (LeaseLostError, StorageError):
                continue
            assert keeper.epoch >= stored, seed
            stored = keeper.epoch


async def test_a_replica_that_lost_its_lease_stores_and_deletes_nothing(store: FaultStore) -> None:
    """Segments, snapshots and retention all stop, with one and the same error, and no request more."""
    db, other = FakeDB(seed=1), FakeDB(seed=2)
    db.begin()
    db.commit()
    first = Replica(db, ReplicaClient(store), lease=True, metrics=Metrics())
    await first.sync()
    other.begin()
    other.commit()
    second = Replica(other, ReplicaClient(store), lease=True, metrics=Metrics())
    assert second._lease is not None and first._lease is not None
    clock = Clock()
    second._lease._clock, second._lease._sleep = clock, clock.sleep
    await second.sync()
    assert clock.slept == [WAIT]
    first._lease._until = 0.0  # its term is over
    db.commit()
    with pytest.raises(LeaseLostError):
        await first.sync()
    calls = list(store.calls)
    with pytest.raises(LeaseLostError):
        await first.sync()
    with pytest.raises(LeaseLostError):
        await first.snapshot()
    assert store.calls == calls
    with pytest.raises(LeaseLostError):
        await first.enforce_retention(now=4e9)
    assert [call for call in store.calls[len(calls) :] if call[0] != "list"] == []
    db.close()
    other.close()


async def test_a_replica_costs_one_listing_per_term_while_it_stores_and_nothing_at_rest(store: FaultStore) -> None:
    """With a lease there is a listing and a put more at the start, and a put at the end; none in between, within one
    term.
    """
    db = FakeDB()
    db.begin()
    db.commit()
    replica = Replica(db, ReplicaClient(store), lease=True, metrics=Metrics())
    await replica.sync()
    assert (store.count("list", "lease/"), store.count("put", "lease/")) == (1, 1)
    for _ in range(20):
        db.commit()
        await replica.sync()
    before = len(store.calls)
    await replica.sync()
    assert len(store.calls) == before
    assert (store.count("list", "lease/"), store.count("put", "lease/")) == (1, 1)
    await replica.close()
    assert store.calls[before:] == [("put", released_key(1))]
    db.close()


async def test_a_claim_whose_answer_was_lost_may_have_been_overtaken(a: Host, b: Host, store: FaultStore) -> None:
    """It was stored, another host took over and deleted it: creating it again would succeed, and mean nothing."""
    store.add(Fault("put", "lost", match="lease/"))
    first, second = a.process(), b.process()
    with pytest.raises(StorageError):
        await first.hold()
    await second.hold()
    assert await keys(store) == [lease_key(2)]
    with pytest.raises(LeaseLostError):
        await first.hold()
