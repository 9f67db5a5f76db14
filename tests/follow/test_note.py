"""Where a copy is after whatever happened: what the note and the copy's own WAL tell together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from helpers.app import App
from litestream import fsutil
from litestream.core.position import Pos
from litestream.follow import note as note_module
from litestream.follow.copy import Copy
from litestream.follow.note import Note, NoteFile, Place, load, trusted

G = "0123456789abcdef"
AT = Place(Pos(G, 3, 100), "ab" * 8, ("cd" * 8, 5, 1, 2))
NEXT = Place(Pos(G, 3, 200), "ab" * 8, ("cd" * 8, 9, 3, 4))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """A note comes back as it was; a shorter one leaves nothing of a longer one behind."""
    meta = str(tmp_path / "meta")
    assert load(meta) is None
    file = NoteFile(meta, fsutil.Access())
    for note in (Note(AT, NEXT, 7, 8), Note(), Note(NEXT, NEXT, 1 << 40, 2)):
        file.write(note)
        read = load(meta)
        assert read == replace(note, boot=note_module.boot_id())
        file.write(note, durable=True)
        assert load(meta) == replace(note, boot=note_module.boot_id(), durable=True)
    file.close()


@pytest.mark.parametrize("raw", [b"", b"x", b"00000000 {}", b'd5a9a3c4 {"version": 1}', bytes(1024), b"\xff" * 300])
def test_a_damaged_note_knows_nothing(raw: bytes, tmp_path: Path) -> None:
    """It says only that the copy was made by following."""
    (tmp_path / "follow.json").write_bytes(raw)
    assert load(str(tmp_path)) == Note()


def test_every_damaged_byte_is_found(tmp_path: Path) -> None:
    """A note of which anything but the padding has changed is not believed."""
    file = NoteFile(str(tmp_path), fsutil.Access())
    file.write(Note(AT, NEXT, 7, 8))
    file.close()
    path = tmp_path / "follow.json"
    good = path.read_bytes()
    for at in range(0, len(good.rstrip()), 3):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert load(str(tmp_path)) == Note(), at


def test_after_a_power_cut_only_a_durable_note_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy's WAL is not flushed with each commit: after a start of the system it may be older than the note."""
    monkeypatch.setattr(note_module, "boot_id", lambda: "now")
    note = Note(AT, NEXT, 7, 8)
    assert trusted(replace(note, boot="now")).known
    assert not trusted(replace(note, boot="before")).known
    assert trusted(replace(note, boot="before", durable=True)).known
    monkeypatch.setattr(note_module, "boot_id", lambda: "")
    assert not trusted(replace(note, boot="")).known


EMPTY = ("", 0, 0, 0)
OTHER = ("ef" * 8, 5, 1, 2)


@pytest.mark.parametrize(
    ("mark", "change", "place", "shown"),
    [
        (AT.mark, {}, AT, AT.pos),
        (NEXT.mark, {}, NEXT, NEXT.pos),
        (EMPTY, {}, AT, NEXT.pos),  # checkpointed away: it is one of the two, and readers may have seen the later
        (OTHER, {}, Place(), Pos()),  # somebody wrote to it
        (AT.mark, {"inode": 9}, Place(), Pos()),  # another file
        (NEXT.mark, {"at": Place(Pos("f" * 16, 1, 2))}, NEXT, NEXT.pos),
        (EMPTY, {"at": Place(Pos("f" * 16, 1, 2))}, Place(), Pos()),  # two histories: nobody knows which
        (AT.mark, {"at": Place(), "next": Place()}, Place(), Pos()),
    ],
)
def test_where_a_killed_follower_goes_on(
    mark: tuple[str, int, int, int], change: dict[str, object], place: Place, shown: Pos, tmp_path: Path
) -> None:
    """It goes on from a state that the copy has for certain, and shows nothing before what readers may have seen."""

    class Local:
        def __init__(self) -> None:
            self.mark = _Mark(*mark)

        def identity(self) -> tuple[int, int]:
            return 7, 8

    class _Mark:
        def __init__(self, salts: str, frames: int, first: int, second: int) -> None:
            self.salts, self.frames, self.checksum = salts, frames, (first, second)

    copy = Copy(str(tmp_path / "copy.db"), str(tmp_path / "meta"))
    copy._local = Local()  # type: ignore[assignment]
    copy._settle(replace(Note(AT, NEXT, 7, 8), **change))  # type: ignore[arg-type]
    copy._local = None
    assert (copy.place, copy.shown) == (place, shown)


def test_an_orderly_end_is_durable(tmp_path: Path, app: App) -> None:
    """After `close` the copy's WAL is empty, all is in the file, and the note holds whatever happens to the host."""
    app.create(tmp_path / "app.db")
    app.ledger(3)
    app.checkpoint("TRUNCATE")
    temp = tmp_path / "temp.db"
    temp.write_bytes((tmp_path / "app.db").read_bytes())
    path, meta = tmp_path / "copy.db", tmp_path / "meta"
    copy = Copy(str(path), str(meta))
    copy.open()
    copy.replace(str(temp), AT.pos)
    copy.replaced(AT.pos)
    copy.close()
    found = load(str(meta))
    assert found is not None
    assert found.durable
    assert found.at.pos == found.next.pos == AT.pos
    assert path.with_name("copy.db-wal").stat().st_size == 0
    again = Copy(str(path), str(meta))
    again.open()
    assert (again.place.pos, again.shown) == (AT.pos, AT.pos)
    again.close()
