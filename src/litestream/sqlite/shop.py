"""The small shop that `litestream demo` keeps busy: `python -m litestream.sqlite.shop PATH`.

It runs in a process of its own, as any application does, and writes the way applications write: inserts, updates,
deletes and rollbacks in WAL mode with SQLite's default autocheckpoint. For each commit it prints `N NANOSECONDS`:
the order's number and when its transaction was committed. It ends when its standard input is closed.
"""

from __future__ import annotations

import random
import re
import select
import sys
import time
from collections.abc import Iterator
from itertools import zip_longest

import apsw

from litestream.sqlite.connection import database_uri

SCHEMA = """
CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL);
CREATE TABLE products(id INTEGER PRIMARY KEY, name TEXT NOT NULL, cents INTEGER NOT NULL, stock INTEGER NOT NULL);
CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customers, reference TEXT NOT NULL);
CREATE TABLE items(
    order_id INTEGER NOT NULL REFERENCES orders, product INTEGER NOT NULL REFERENCES products, n INTEGER NOT NULL
);
CREATE INDEX items_by_order ON items(order_id);
CREATE INDEX orders_by_customer ON orders(customer);
"""
_CITIES = ("Accra", "Bergen", "Cusco", "Dakar", "Essen", "Fukuoka", "Graz", "Hobart")
_GOODS = ("Lamp", "Chair", "Kettle", "Notebook", "Bicycle", "Tent", "Radio", "Blanket")
_PAUSE = 0.004  # seconds between transactions: about 200 commits a second, and a core left for everything else
_REFERENCE = re.compile(rb"order-(\d{10})")


def _open(path: str) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    connection = apsw.Connection(database_uri(path), flags=flags)
    connection.set_busy_timeout(5000)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def create(path: str) -> None:
    """Make the shop's database with its customers and products."""
    chance = random.Random(1)  # noqa: S311 the same shop every time
    connection = _open(path)
    with connection:
        connection.execute(SCHEMA)
        for i in range(200):
            connection.execute("INSERT INTO customers VALUES(NULL, ?, ?)", (f"Customer {i}", chance.choice(_CITIES)))
            goods = f"{chance.choice(_GOODS)} {i}"
            connection.execute("INSERT INTO products VALUES(NULL, ?, ?, ?)", (goods, chance.randint(99, 99999), 10**6))
    connection.close()


def order(connection: apsw.Connection, chance: random.Random, number: int) -> None:
    """One transaction: an order with its items; now and then an older order is cancelled or a price changed."""
    with connection:
        reference = f"order-{number:010d}"
        connection.execute("INSERT INTO orders VALUES(?, ?, ?)", (number, chance.randint(1, 200), reference))
        for _ in range(chance.randint(1, 4)):
            product = chance.randint(1, 200)
            connection.execute("INSERT INTO items VALUES(?, ?, ?)", (number, product, chance.randint(1, 9)))
            connection.execute("UPDATE products SET stock = stock - 1 WHERE id = ?", (product,))
        if number % 10 == 0:
            cancelled = chance.randint(1, number)
            connection.execute("DELETE FROM items WHERE order_id = ?", (cancelled,))
        if number % 25 == 0:
            connection.execute("UPDATE products SET cents = cents + 1 WHERE id = ?", (chance.randint(1, 200),))


def _abandon(connection: apsw.Connection) -> None:
    """A transaction that is rolled back: none of it may ever be seen in a restored copy."""
    connection.execute("BEGIN")
    connection.execute("UPDATE products SET stock = -1")
    connection.execute("ROLLBACK")


def keep_busy(path: str) -> None:
    """Write orders until standard input is closed."""
    chance = random.Random(2)  # noqa: S311 nothing secret
    connection = _open(path)
    number = 0
    while not select.select([sys.stdin], [], [], _PAUSE)[0]:
        number += 1
        order(connection, chance, number)
        sys.stdout.write(f"{number} {time.time_ns()}\n")
        sys.stdout.flush()
        if number % 40 == 0:
            _abandon(connection)
    connection.close()


def newest_order(wal: bytes) -> int:
    """The greatest order number that a piece of WAL mentions, 0 for none."""
    return max((int(match[1]) for match in _REFERENCE.finditer(wal)), default=0)


def compare(one: str, two: str) -> tuple[int, list[str]]:
    """Compare two databases row by row: the number of rows, and the differences in words (empty: they are equal)."""
    left, right = _open(one), _open(two)
    try:
        differences = [] if _schema(left) == _schema(right) else ["the schemas differ"]
        rows = 0
        for table in sorted(name for kind, name, _ in _schema(left) if kind == "table"):
            for number, (a, b) in enumerate(zip_longest(_rows(left, table), _rows(right, table)), 1):
                rows += 1
                if a != b:
                    differences.append(f"table {table}, row {number}: {a} is not {b}")
                    break
        return rows, differences
    finally:
        left.close()
        right.close()


def _schema(connection: apsw.Connection) -> list[tuple[str, str, str]]:
    return [(str(a), str(b), str(c)) for a, b, c in connection.execute("SELECT type, name, sql FROM sqlite_master")]


def _rows(connection: apsw.Connection, table: str) -> Iterator[tuple[object, ...]]:
    return iter(connection.execute(f'SELECT rowid, * FROM "{table}" ORDER BY rowid'))  # noqa: S608 our own names


if __name__ == "__main__":
    keep_busy(sys.argv[1])
