"""A reader of a followed copy, in a process of its own, with Python's SQLite: `python -m helpers.copyreader PATH`.

It looks at the ledger again and again until its standard input is closed, and prints what it found as JSON: the last
transaction seen, how often it looked, and everything that no reader may ever see.
"""

from __future__ import annotations

import json
import random
import select
import sqlite3
import sys
import time

from helpers.ledger import NotACommittedStateError, mark, transfer

_BIG_LOOK = 40  # every so many looks the whole ledger is checked, and SQLite's own check runs


def look(connection: sqlite3.Connection, whole: bool) -> int:
    """The number of the last transaction, all of whose effects are there."""
    connection.execute("BEGIN")
    try:
        n, count = connection.execute("SELECT coalesce(max(n), 0), count(*) FROM ledger").fetchone()
        (total,) = connection.execute("SELECT sum(balance) FROM account").fetchone()
        if count != n or total != 0:
            raise NotACommittedStateError(f"{count} rows up to {n}, balances sum up to {total}")
        if n and connection.execute("SELECT n FROM ledger WHERE mark = ?", (mark(n),)).fetchall() != [(n,)]:
            raise NotACommittedStateError(f"row {n} is not in the index")
        if whole:
            check(connection, n)
        return int(n)
    finally:
        connection.execute("ROLLBACK")


def check(connection: sqlite3.Connection, n: int) -> None:
    balances = [0] * 16
    for number in range(1, n + 1):
        source, target, amount = transfer(number)
        balances[source] -= amount
        balances[target] += amount
    if [row[0] for row in connection.execute("SELECT balance FROM account ORDER BY id")] != balances:
        raise NotACommittedStateError(f"the balances are not those after transaction {n}")
    found = connection.execute("PRAGMA integrity_check").fetchall()
    if found != [("ok",)]:
        raise NotACommittedStateError(f"integrity_check: {found[:3]}")


def main(path: str) -> None:
    chance = random.Random(path)
    last = looks = busy = 0
    problems: list[str] = []
    connection: sqlite3.Connection | None = None
    while len(problems) < 5:
        if select.select([sys.stdin], [], [], chance.random() * 0.004)[0]:
            break
        try:
            if connection is None:
                connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=5)
            looks += 1
            n = look(connection, looks % _BIG_LOOK == 0)
            if n < last:
                problems.append(f"went back from {last} to {n}")
            last = n
            if chance.random() < 0.02:  # now and then a new reader
                connection.close()
                connection = None
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                busy += 1
            else:
                problems.append(f"{error.sqlite_errorname}: {error}")
            time.sleep(0.001)
        except (sqlite3.Error, NotACommittedStateError) as error:
            problems.append(f"{type(error).__name__}: {error}")
    print(json.dumps({"last": last, "looks": looks, "busy": busy, "problems": problems}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
