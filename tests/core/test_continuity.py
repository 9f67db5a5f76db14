"""Verdicts on continuity: each row of the table, a model of SQLite's WAL, and a real database."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.app import App
from helpers.wal import beside
from helpers.walmaker import SALTS, flip, make_frames, make_wal, pages
from litestream.core.continuity import (
    Fresh,
    Known,
    Lost,
    NothingNew,
    Observed,
    Restarted,
    Same,
    Unclear,
    Verdict,
    judge,
)
from litestream.core.wal import (
    WAL_HEADER_SIZE,
    FrameHeader,
    WALHeader,
    committed_prefix,
    frame_offset,
    frame_size,
    scan_frames,
)
from litestream.core.walindex import WalIndexHeader, parse_wal_index

PAGE = 512
TRUNCATED = Lost("wal truncated by another process")
OVERWRITTEN = Lost("wal overwritten by another process")
REMOVED = Lost("wal removed")
# The database may have gone on unseen:
PASSED = Lost("wal restarted while not watching", passed=True)
EMPTIED, SPOILT, GONE = (replace(lost, passed=True) for lost in (TRUNCATED, OVERWRITTEN, REMOVED))
NEW_PAGE_SIZE = Lost("page size changed")
DISAGREE = Unclear("wal and wal-index disagree")
UNREADABLE = Unclear("wal-index not readable")


# One row after the other. The WAL holds 5 frames, of which 3 are known.

HEADER, WAL = make_wal(PAGE, pages(random.Random(1), PAGE, [1, 0, 2, 3, 4]))
OTHER_HEADER, OTHER = make_wal(PAGE, pages(random.Random(2), PAGE, [1, 1, 1, 1, 1]), salts=bytes(8))


def frame_before(wal: bytes, offset: int, page_size: int = PAGE) -> bytes:
    """The 24-byte header of the frame that ends at `offset`; empty where there is none."""
    if offset <= WAL_HEADER_SIZE:
        return b""
    at = offset - frame_size(page_size)
    return wal[at : at + 24]


def index_of(header: WALHeader, wal: bytes, frames: int) -> WalIndexHeader:
    """The wal-index while `frames` frames of this WAL are committed."""
    at = frame_before(wal, frame_offset(frames, header.page_size), header.page_size)
    checksum = FrameHeader.parse(at).checksum if at else (0, 0)
    return WalIndexHeader(frames, header.page_size, frames, 9, checksum, header.salts, header.big)


def known_at(header: WALHeader, wal: bytes, frames: int) -> Known:
    """A copy of this WAL up to `frames` frames."""
    offset = frame_offset(frames, header.page_size)
    last = frame_before(wal, offset, header.page_size)
    checksum = FrameHeader.parse(last).checksum if last else header.checksum
    return Known(header.page_size, header.raw, offset, checksum, last)


KNOWN = known_at(HEADER, WAL, 3)
INDEX = index_of(HEADER, WAL, 5)
EMPTY = replace(INDEX, max_frame=0, checksum=(0, 0))
RESET = replace(EMPTY, salts=OTHER_HEADER.salts)
OBSERVED = Observed(len(WAL), HEADER.raw, INDEX, KNOWN.last_frame)
OTHER_OBSERVED = Observed(
    len(OTHER), OTHER_HEADER.raw, index_of(OTHER_HEADER, OTHER, 5), frame_before(OTHER, KNOWN.offset)
)
BEFORE_WAL = Known(PAGE, b"", 0, (0, 0), b"")
"""A generation that began while the WAL was empty."""
SAME = Same(HEADER, KNOWN.offset, len(WAL), INDEX.checksum)
RESTARTED = Restarted(OTHER_HEADER, len(OTHER), FrameHeader.parse(frame_before(OTHER, len(OTHER))).checksum)


@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize(
    ("known", "observed", "expected"),
    [
        pytest.param(KNOWN, OBSERVED, SAME, id="more frames"),
        pytest.param(KNOWN, replace(OBSERVED, index=index_of(HEADER, WAL, 3)), NothingNew(), id="no more frames"),
        pytest.param(
            KNOWN,
            replace(OBSERVED, index=index_of(HEADER, WAL, 4)),
            replace(SAME, end=frame_offset(4, PAGE), checksum=index_of(HEADER, WAL, 4).checksum),
            id="valid frames that the wal-index does not name",
        ),
        pytest.param(known_at(HEADER, WAL, 0), OBSERVED, replace(SAME, offset=32), id="header known only"),
        pytest.param(
            known_at(HEADER, WAL, 0), replace(OBSERVED, index=EMPTY), NothingNew(), id="header known only, no frame"
        ),
        pytest.param(
            replace(KNOWN, offset=0, last_frame=b""), OBSERVED, replace(SAME, offset=0), id="header known, not copied"
        ),
        pytest.param(KNOWN, replace(OBSERVED, index=EMPTY), TRUNCATED, id="same salts, no frame left"),
        pytest.param(KNOWN, replace(OBSERVED, index=index_of(HEADER, WAL, 2)), TRUNCATED, id="fewer frames than known"),
        pytest.param(
            KNOWN, replace(OBSERVED, wal_size=KNOWN.offset - 1), TRUNCATED, id="file shorter than what is known"
        ),
        pytest.param(
            KNOWN, replace(OBSERVED, wal_size=len(WAL) - 1), Unclear(TRUNCATED.reason), id="file short of the index"
        ),
        pytest.param(
            KNOWN,
            replace(OBSERVED, frame_at_known=flip(KNOWN.last_frame, 180)),
            OVERWRITTEN,
            id="another frame where the last known one was",
        ),
        pytest.param(KNOWN, replace(OBSERVED, frame_at_known=b""), OVERWRITTEN, id="no frame there"),
        pytest.param(
            KNOWN,
            replace(OBSERVED, index=replace(index_of(HEADER, WAL, 3), checksum=(1, 2))),
            OVERWRITTEN,
            id="the index means another last frame",
        ),
        pytest.param(KNOWN, replace(OBSERVED, index=None), UNREADABLE, id="index torn"),
        pytest.param(
            KNOWN, replace(OBSERVED, index=replace(INDEX, salts=bytes(8))), DISAGREE, id="index of another WAL"
        ),
        pytest.param(
            KNOWN,
            replace(OBSERVED, index=index_of(OTHER_HEADER, OTHER, 1)),
            DISAGREE,
            id="index of another WAL, shorter than what is known",
        ),
        pytest.param(
            KNOWN, replace(OBSERVED, index=replace(INDEX, big=True)), DISAGREE, id="index of another byte order"
        ),
        pytest.param(
            KNOWN, replace(OBSERVED, index=replace(INDEX, page_size=1024)), NEW_PAGE_SIZE, id="page size in the index"
        ),
        pytest.param(
            KNOWN,
            replace(OTHER_OBSERVED, header=WALHeader.build(1024, bytes(8)).raw, index=None),
            NEW_PAGE_SIZE,
            id="page size in the header",
        ),
        pytest.param(None, OBSERVED, Fresh(HEADER, len(WAL), INDEX.checksum), id="nothing known"),
        pytest.param(None, replace(OBSERVED, index=EMPTY), Fresh(None, 0, (0, 0)), id="nothing known, no frame"),
        pytest.param(
            None, Observed(None, b"", EMPTY, b""), Fresh(None, 0, (0, 0)), id="nothing known, no WAL file yet"
        ),
        pytest.param(None, replace(OBSERVED, index=None), UNREADABLE, id="nothing known, index torn"),
        pytest.param(
            None, replace(OBSERVED, index=OTHER_OBSERVED.index), DISAGREE, id="nothing known, index of another WAL"
        ),
    ],
)
def test_verdicts_whether_anchored_or_not(
    known: Known | None, observed: Observed, expected: Verdict, anchored: bool
) -> None:
    """Where the header is the known one, or nothing is known, the bytes alone decide."""
    assert judge(known, anchored, observed) == expected


@pytest.mark.parametrize(
    ("known", "observed", "expected", "not_anchored"),
    [
        pytest.param(KNOWN, replace(OBSERVED, wal_size=None, header=b""), REMOVED, GONE, id="WAL removed"),
        pytest.param(KNOWN, OTHER_OBSERVED, RESTARTED, PASSED, id="frames under another header"),
        pytest.param(KNOWN, Observed(0, b"", RESET, b""), NothingNew(), EMPTIED, id="WAL of 0 bytes"),
        pytest.param(
            KNOWN,
            replace(OTHER_OBSERVED, index=RESET),
            NothingNew(),
            PASSED,
            id="another header without a committed frame",
        ),
        pytest.param(
            KNOWN,
            replace(OTHER_OBSERVED, index=replace(EMPTY, salts=b"whatever")),
            NothingNew(),
            PASSED,
            id="the same, drawn afresh",
        ),
        pytest.param(
            KNOWN, replace(OBSERVED, index=RESET), NothingNew(), PASSED, id="reset that has not reached the file"
        ),
        pytest.param(KNOWN, replace(OTHER_OBSERVED, index=None), UNREADABLE, PASSED, id="another header, index torn"),
        pytest.param(
            KNOWN, replace(OTHER_OBSERVED, index=INDEX), DISAGREE, PASSED, id="another header, index as before"
        ),
        pytest.param(
            KNOWN,
            Observed(0, b"", INDEX, b""),
            Unclear(TRUNCATED.reason),
            EMPTIED,
            id="0 bytes though the index has frames",
        ),
        pytest.param(
            KNOWN,
            Observed(0, HEADER.raw, INDEX, KNOWN.last_frame),
            Unclear(TRUNCATED.reason),
            EMPTIED,
            id="emptied after its header was read",
        ),
        pytest.param(
            KNOWN,
            replace(OBSERVED, header=flip(HEADER.raw, 200)),
            Unclear(OVERWRITTEN.reason),
            SPOILT,
            id="damaged header",
        ),
        pytest.param(
            KNOWN,
            replace(OTHER_OBSERVED, wal_size=len(OTHER) - 1),
            Unclear(TRUNCATED.reason),
            PASSED,
            id="another header, file short of the index",
        ),
        pytest.param(
            known_at(HEADER, WAL, 0), OTHER_OBSERVED, RESTARTED, PASSED, id="header known only, another follows"
        ),
        pytest.param(
            BEFORE_WAL,
            OBSERVED,
            replace(SAME, offset=0),
            PASSED,
            id="the first WAL of the index",
        ),
        pytest.param(BEFORE_WAL, Observed(0, b"", EMPTY, b""), NothingNew(), PASSED, id="still no WAL"),
    ],
)
def test_a_change_of_header_counts_only_when_anchored(
    known: Known, observed: Observed, expected: Verdict, not_anchored: Verdict
) -> None:
    """Another header continues what was copied only if a reader was held throughout; otherwise it is lost."""
    assert judge(known, True, observed) == expected
    assert judge(known, False, observed) == not_anchored


def test_same_size_to_the_byte_proves_nothing() -> None:
    """A WAL of another header is told apart though its file has the very size of the known one."""
    assert len(OTHER) == len(WAL)
    assert judge(known_at(HEADER, WAL, 5), True, OTHER_OBSERVED) == RESTARTED


# A model of SQLite's side


@dataclass
class Wal:
    """What SQLite does to -wal and -shm, in bytes, one step at a time."""

    rng: random.Random
    file: bytes = b""
    salts: bytes = SALTS
    committed: int = 0
    """Frames that the wal-index names; 0 after a reset."""
    resets: int = 0
    history: list[bytes] = field(default_factory=list)
    """The committed content of every WAL that ever had a commit, in order."""

    def _write(self, commits: list[int]) -> bytes:
        """Header if there is none of these salts yet, and frames behind the committed ones."""
        header = WALHeader.build(PAGE, self.salts, self.resets)
        done = self.file[: frame_offset(self.committed, PAGE)] if self.committed else header.raw
        last = frame_before(done, len(done))
        start = FrameHeader.parse(last).checksum if last else header.checksum
        done += make_frames(header, pages(self.rng, PAGE, commits), start)
        self.file = done + self.file[len(done) :]
        return done

    def commit(self) -> None:
        frames = self.rng.randrange(1, 4)
        done = self._write([0] * (frames - 1) + [self.rng.randrange(1, 9)])
        if self.committed:
            self.history[-1] = done
        else:
            self.history.append(done)
        self.committed += frames

    def spill(self) -> None:
        """Frames that are rolled back, or whose writer died, with or without a commit mark on the last."""
        self._write([0, self.rng.randrange(2), self.rng.randrange(2)])

    def announce(self) -> None:
        """A reset that has only reached the wal-index."""
        self.resets += 1
        self.committed = 0
        self.salts = self.rng.randbytes(8)

    def truncate(self) -> None:
        self.announce()
        self.file = b""

    def lose_tail(self) -> None:
        """A power loss takes the last frames of the file, and recovery finds what is left."""
        if self.committed:
            self.file = self.file[: self.rng.randrange(32, len(self.file) + 1)]
            self.committed = committed_prefix(self.file)[1].committed
            self.history[-1] = self.file[: frame_offset(self.committed, PAGE)]
            if not self.committed:
                self.history.pop()

    def look(self, known: Known | None) -> Observed:
        end = frame_offset(self.committed, PAGE)
        last = frame_before(self.file, end) if self.committed else b""
        checksum = FrameHeader.parse(last).checksum if last else (0, 0)
        index = WalIndexHeader(1, PAGE if last else 0, self.committed, 1, checksum, self.salts, False)
        at = frame_before(self.file, known.offset) if known else b""
        return Observed(len(self.file), self.file[:32], index, at)


class Replicator:
    """Follows the verdicts; `copied` is the content of each index."""

    def __init__(self, wal: Wal) -> None:
        self.wal = wal
        self.known: Known | None = None
        self.copied: list[bytes] = []

    def look(self, *, anchored: bool) -> Verdict:
        return judge(self.known, anchored, self.wal.look(self.known))

    def take(self, verdict: Verdict) -> None:
        """Copy what the verdict names, and check the chain as the verdict says."""
        if isinstance(verdict, NothingNew):
            return
        assert isinstance(verdict, Fresh | Same | Restarted), verdict
        if verdict.header is None:
            self.known = BEFORE_WAL
            return
        offset, start = 0, verdict.header.checksum
        if isinstance(verdict, Same) and self.known is not None and verdict.offset > 32:
            offset, start = verdict.offset, self.known.checksum
        data = self.wal.file[offset : verdict.end]
        run = scan_frames(data, verdict.header, start=start, offset=0 if offset else 32)
        assert offset + (0 if offset else 32) + run.committed * frame_size(PAGE) == verdict.end
        assert run.committed_checksum == verdict.checksum
        if offset:
            self.copied[-1] += data
        else:
            self.copied.append(data)
        self.known = known_at(verdict.header, self.copied[-1], (verdict.end - 32) // frame_size(PAGE))


steps = st.lists(st.sampled_from(["commit", "spill", "announce", "truncate", "look"]), max_size=25)


@settings(deadline=None, max_examples=300)
@given(before=steps, during=steps, seed=st.integers(0, 1 << 32))
def test_anchored_copies_are_complete(before: list[str], during: list[str], seed: int) -> None:
    """While anchored, whatever SQLite does, the copies are exactly the WALs that had commits since the beginning."""
    wal = Wal(random.Random(seed))
    for step in before:
        if step != "look":
            getattr(wal, step)()
    replicator = Replicator(wal)
    replicator.take(replicator.look(anchored=True))
    first = len(wal.history) - len(replicator.copied)
    for step in [*during, "look"]:
        if step == "look" or (step in ("announce", "truncate") and wal.committed):
            # Our reader forbids a reset of what is not copied: this is what anchored means.
            replicator.take(replicator.look(anchored=True))
        if step != "look":
            getattr(wal, step)()
    replicator.take(replicator.look(anchored=True))
    assert replicator.copied == wal.history[first:]


@settings(deadline=None, max_examples=300)
@given(
    before=steps,
    away=st.lists(st.sampled_from(["commit", "spill", "announce", "truncate", "lose_tail"]), max_size=6),
    seed=st.integers(0, 1 << 32),
)
def test_coming_back_goes_on_only_where_the_bytes_prove_it(before: list[str], away: list[str], seed: int) -> None:
    """Unwatched, it goes on exactly if there was no reset and what was copied still stands there."""
    wal = Wal(random.Random(seed))
    for step in before:
        if step != "look":
            getattr(wal, step)()
    wal.commit()
    replicator = Replicator(wal)
    replicator.take(replicator.look(anchored=True))
    resets, copied = wal.resets, replicator.copied[-1]
    for step in away:
        getattr(wal, step)()
    verdict = replicator.look(anchored=False)
    if wal.resets > resets or not wal.committed or not wal.history[-1].startswith(copied):
        assert isinstance(verdict, Lost)
    else:
        replicator.take(verdict)
        assert replicator.copied[-1] == wal.history[-1]


# A real database


class Watch:
    """Looks at a live database's files, from a process that has it not open."""

    def __init__(self, db: Path) -> None:
        self.db = db
        self.known: Known | None = None

    def __call__(self, *, anchored: bool = True, page_size: int = 4096) -> Verdict:
        shm = parse_wal_index(beside(self.db, "-shm").read_bytes())
        try:
            wal = beside(self.db, "-wal").read_bytes()
        except FileNotFoundError:
            return judge(self.known, anchored, Observed(None, b"", shm[0] if shm else None, b""))
        at = frame_before(wal, self.known.offset, page_size) if self.known else b""
        verdict = judge(self.known, anchored, Observed(len(wal), wal[:32], shm[0] if shm else None, at))
        if isinstance(verdict, Fresh | Same | Restarted) and verdict.header is not None:
            count = committed_prefix(wal)[1].committed
            assert verdict.end == frame_offset(count, page_size)
            self.known = known_at(verdict.header, wal, count)
        return verdict


def test_a_real_database(tmp_path: Path, app: App) -> None:
    """Commits, spills, resets, an emptied and a removed WAL of a real database get their verdicts."""
    db = tmp_path / "a.db"
    app.open(db, pragmas=["journal_mode=WAL", "wal_autocheckpoint=0", "cache_size=5"])
    watch = Watch(db)
    app.sql("CREATE TABLE t(x)")
    assert isinstance(watch(), Fresh)
    assert watch() == NothingNew()
    app.sql("INSERT INTO t VALUES (1)")
    assert isinstance(watch(), Same)
    app.sql("BEGIN")
    app.sql("INSERT INTO t VALUES (randomblob(1000000))")
    assert watch() == NothingNew()
    app.sql("ROLLBACK")
    app.sql("INSERT INTO t VALUES (2)")
    assert isinstance(watch(anchored=False), Same)
    app.checkpoint("PASSIVE")
    assert watch(anchored=False) == NothingNew()
    app.sql("INSERT INTO t VALUES (3)")
    assert watch(anchored=False) == PASSED
    assert isinstance(watch(), Restarted)
    app.checkpoint("TRUNCATE")
    assert watch(anchored=False) == EMPTIED
    assert watch() == NothingNew()
    app.sql("BEGIN")
    app.sql("INSERT INTO t VALUES (randomblob(1000000))")
    app.sql("ROLLBACK")
    assert beside(db, "-wal").stat().st_size > 32
    assert watch() == NothingNew()
    app.sql("INSERT INTO t VALUES (4)")
    assert isinstance(watch(), Restarted)
    beside(db, "-wal").unlink()
    assert watch() == REMOVED
