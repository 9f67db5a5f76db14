"""The decision who may write to a replica, and its names and records."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from litestream.core.lease import (
    TERM,
    WAIT,
    Claim,
    Found,
    Lost,
    Note,
    Record,
    decide,
    lease_key,
    read_keys,
    released_key,
)

tokens = st.integers(0, 3).map(lambda n: f"{n:032x}")
hosts = st.sampled_from(["a", "b", "ü\udcff"])
epochs = st.integers(0, 5)
notes = st.builds(Note, epoch=st.integers(1, 6), token=tokens, host=hosts, ready=st.booleans())
records = st.builds(
    Record,
    epoch=st.integers(1, 5),
    token=tokens,
    host=hosts,
    pid=st.integers(1, 9),
    boot=st.text(max_size=5),
    started=st.integers(0, 9),
    waits=st.booleans(),
    claimed_at=st.text(max_size=5),
)


def record(token: str = "1" * 32, *, waits: bool = False) -> Record:
    return Record(5, token, "other", 1, "boot", 1, waits, "2026-01-02T03:04:05Z")


def test_the_wait_is_longer_than_the_term() -> None:
    """Who waits waits for the end of the other's term, and for what that one has under way."""
    assert WAIT >= TERM + 5


@given(note=notes, record=records)
def test_notes_and_records_are_read_back(note: Note, record: Record) -> None:
    """What is written is read back the same, whatever the names; rubbish is no note and no record."""
    assert Note.parse(note.pack()) == note
    assert note.pack().isascii() and len(note.pack()) < 1000
    assert Record.parse(record.pack()) == record
    assert Note.parse(note.pack()[1:] + "x") is None
    assert Record.parse(record.pack()[:-3]) is None


@given(data=st.binary(max_size=40), text=st.text(max_size=40))
def test_rubbish_is_no_record(data: bytes, text: str) -> None:
    """Foreign bytes do not stop anybody."""
    assert Record.parse(data) is None
    assert Note.parse(text) is None


@given(numbers=st.sets(st.integers(1, 10**10), max_size=6), released=st.sets(st.integers(1, 10**10), max_size=3))
def test_the_highest_epoch_counts(numbers: set[int], released: set[int]) -> None:
    """Names give the highest epoch and whether it was given back; foreign names are passed over."""
    keys = [lease_key(n) for n in numbers] + [released_key(n) for n in released]
    found = read_keys([*keys, "lease/README", "lease/0000000x", "generations/0000000000000001/wal/x"])
    highest = max(numbers | released, default=0)
    assert (found.epoch, found.released) == (highest, highest in released)
    assert set(found.older) == {key for key in keys if not key.startswith(lease_key(highest))}


@given(epoch=epochs, released=st.booleans(), record=st.none() | records, note=st.none() | notes, ended=st.booleans())
def test_what_is_decided(epoch: int, released: bool, record: Record | None, note: Note | None, ended: bool) -> None:
    """A claim is always of an epoch above all that were seen or tried; without a wait only where nobody can be at it;
    and only who was overtaken is lost.
    """
    found = Found(epoch, released=released and epoch > 0)
    decision = decide(found, record, note, host="a", ended=ended)
    if isinstance(decision, Lost):
        assert note is not None and note.epoch < epoch and not found.released
        assert not (ended and record is not None)
        return
    assert decision.epoch > max(epoch, note.epoch if note is not None else 0)
    if not decision.wait:
        gone = ended or (note is not None and note.epoch == epoch and note.host == "a")  # of ours, this is the next one
        granted = (note is not None and note.epoch == epoch and note.ready) or (record is not None and not record.waits)
        assert epoch == 0 or found.released or (gone and granted)


def test_the_cases_of_the_documentation() -> None:
    """First host, restart, copied state, newcomer, overtaken, released, killed here at any moment, unreadable."""
    mine = Note(5, "1" * 32, "here", ready=True)
    theirs = record("2" * 32)
    at5 = Found(5)
    assert decide(Found(), None, None, host="here", ended=False) == Claim(1, wait=False)
    assert decide(at5, record(), mine, host="here", ended=False) == Claim(6, wait=False)
    assert decide(at5, record(), mine, host="copy", ended=False) == Claim(6, wait=True)
    assert decide(at5, theirs, None, host="here", ended=False) == Claim(6, wait=True)
    assert decide(at5, theirs, Note(4, "1" * 32, "here", ready=True), host="here", ended=False) == Lost(5)
    assert decide(Found(5, released=True), theirs, Note(4, "1" * 32, "here"), host="here", ended=False) == Claim(
        6, wait=False
    )
    assert decide(at5, theirs, None, host="here", ended=True) == Claim(6, wait=False)
    assert decide(at5, record("2" * 32, waits=True), None, host="here", ended=True) == Claim(6, wait=True)
    assert decide(at5, None, mine, host="here", ended=False) == Claim(6, wait=False)
    # Killed before it noted what it had been given; killed while it waited: the wait begins anew.
    tried = Note(5, "1" * 32, "here")
    assert decide(at5, record(), tried, host="here", ended=True) == Claim(6, wait=False)
    assert decide(at5, record(), tried, host="here", ended=False) == Claim(6, wait=False)
    assert decide(at5, record(), tried, host="copy", ended=False) == Claim(6, wait=True)
    assert decide(at5, record(waits=True), tried, host="here", ended=True) == Claim(6, wait=True)
    assert decide(at5, None, tried, host="here", ended=False) == Claim(6, wait=True)
    # A claim that was sent and is not there: its number is not used.
    assert decide(at5, theirs, Note(6, "1" * 32, "here"), host="here", ended=False) == Claim(7, wait=True)
