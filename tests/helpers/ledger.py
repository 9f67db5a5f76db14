"""A ledger: transaction n's content is a function of n alone.

So any restored file is recognisable as "exactly the state after transaction n", or as no committed state at all:
one row per transaction with a hash and a padding of known bytes, and sixteen balances that only add up if every
transaction up to n is there and none after it.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path

ACCOUNTS = 16
BIG = 2000
"""Padding is shorter than this, in bytes, unless the caller says otherwise."""


class NotACommittedStateError(AssertionError):
    """The database is not the state after any whole number of ledger transactions; the text says why."""


def padding(n: int, big: int = BIG) -> bytes:
    """The padding of transaction n: 0 to big - 1 bytes."""
    size = n * 7919 % big
    return (hashlib.sha256(b"padding %d" % n).digest() * (size // 32 + 1))[:size]


def mark(n: int) -> str:
    return hashlib.md5(b"%d" % n, usedforsecurity=False).hexdigest()


def transfer(n: int) -> tuple[int, int, int]:
    """(from account, to account, amount) of transaction n."""
    r = int.from_bytes(hashlib.sha256(b"transfer %d" % n).digest()[:8], "big")
    return r % ACCOUNTS, (r >> 16) % ACCOUNTS, (r >> 32) % 1000


def init(connection: sqlite3.Connection) -> None:
    """Create the ledger's tables, as transaction 0."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE ledger(n INTEGER PRIMARY KEY, mark TEXT NOT NULL, padding BLOB)")
    connection.execute("CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")
    connection.execute("CREATE INDEX ledger_mark ON ledger(mark)")
    connection.executemany("INSERT INTO account VALUES(?, 0)", [(i,) for i in range(ACCOUNTS)])
    connection.execute("COMMIT")


def write(connection: sqlite3.Connection, big: int = BIG) -> int:
    """Commit the next transaction, on a connection with isolation_level=None, and return its number."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        n: int = connection.execute("SELECT coalesce(max(n), 0) + 1 FROM ledger").fetchone()[0]
        source, target, amount = transfer(n)
        connection.execute("INSERT INTO ledger VALUES(?,?,?)", (n, mark(n), padding(n, big)))
        connection.execute("UPDATE account SET balance=balance-? WHERE id=?", (amount, source))
        connection.execute("UPDATE account SET balance=balance+? WHERE id=?", (amount, target))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return n


def check(path: Path, big: int = BIG) -> int:
    """n, where the database at `path` is exactly the state after transaction n.

    Raises `NotACommittedStateError` otherwise. For restored files and copies only: this process opens the file.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return _check(connection, big)
    except sqlite3.Error as e:
        raise NotACommittedStateError(f"{path.name}: {type(e).__name__}: {e}") from e
    finally:
        connection.close()


def _check(connection: sqlite3.Connection, big: int) -> int:
    bad = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
    if bad != ["ok"]:
        raise NotACommittedStateError(f"integrity_check: {'; '.join(bad[:3])}")
    balances = [0] * ACCOUNTS
    n = 0
    rows: Iterable[tuple[int, str, bytes | None]] = connection.execute("SELECT n, mark, padding FROM ledger ORDER BY n")
    for number, text, filler in rows:
        n += 1
        if number != n:
            raise NotACommittedStateError(f"row {number} stands where row {n} should")
        if text != mark(n) or (filler or b"") != padding(n, big):
            raise NotACommittedStateError(f"row {n} has other content")
        source, target, amount = transfer(n)
        balances[source] -= amount
        balances[target] += amount
    got = [row[0] for row in connection.execute("SELECT balance FROM account ORDER BY id")]
    if got != balances:
        raise NotACommittedStateError(f"the balances are not those after transaction {n}")
    return n
