"""What a configuration that was read again asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestream.config import Config, loads
from litestream.daemon.difference import Difference, difference, needs_new_start, waiting_for


def config(*databases: str, top: str = "") -> Config:
    """A file with entries like `a retention: 2h`: name of the database, and keys of its replica, which is `/r/a`."""
    entries = []
    for text in databases:
        name, _, keys = text.partition(" ")
        entries.append(f"- {{path: /d/{name}, replicas: [{{path: /r/{name}{', ' if keys else ''}{keys}}}]}}")
    return loads(f"{top}\ndbs: [{', '.join(entry[2:] for entry in entries)}]")


def paths(found: Difference) -> tuple[set[str], set[str], set[str]]:
    return tuple({one.path[3:] for one in some} for some in (found.added, found.removed, found.changed))  # type: ignore[return-value]  # of three


ENTRIES = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["", "retention: 2h", "sync-interval: 3s"]))


@given(ENTRIES, ENTRIES)
def test_databases_that_came_went_and_changed(old: dict[str, str], new: dict[str, str]) -> None:
    """Each is in one of the three, or the same in both; there and back is the reverse."""
    before, after = (config(*(f"{name} {keys}" for name, keys in one.items())) for one in (old, new))
    added, removed, changed = paths(difference(before, after))
    assert added == new.keys() - old.keys()
    assert removed == old.keys() - new.keys()
    assert changed == {name for name in old.keys() & new.keys() if old[name] != new[name]}
    assert paths(difference(after, before)) == (removed, added, changed)
    assert not difference(before, before)


@pytest.mark.parametrize(
    ("top", "settings", "restart"),
    [
        ("addr: ':9'", (), ("addr",)),
        ("exec: app\nsocket: {enabled: true}", (), ("exec", "socket")),
        ("logging: {level: warn}", ("logging",), ()),
        ("heartbeat-url: https://example.com/x", (), ("heartbeat-url",)),
        ("shutdown-sync-timeout: 7s", ("shutdown-sync-timeout",), ()),
    ],
)
def test_keys_of_the_top(top: str, settings: tuple[str, ...], restart: tuple[str, ...]) -> None:
    """Some count at once, and some only at the next start."""
    found = difference(config("a"), config("a", top=top))
    assert (found.settings, found.restart) == (settings, restart)
    assert paths(found) == (set(), set(), set())
    assert found


def test_a_default_of_the_file_changes_who_has_it() -> None:
    """It is in each replica, and counts for databases that are registered from now on."""
    found = difference(config("a", "b retention: 2h"), config("a", "b retention: 2h", top="retention: 9h"))
    assert paths(found) == (set(), set(), {"a"})
    assert found.settings == ("defaults",)


def test_who_has_to_wait_for_whom() -> None:
    """A place that is still used, and a file under another path, are waited for; others are not."""
    (old,) = config("a").databases
    (moved,) = loads("dbs: [{path: /d/b, replica: {path: /r/a}}]").databases
    (other,) = config("c").databases
    assert waiting_for([moved, other], [old]) == {"/d/b"}


def test_what_cannot_go_on() -> None:
    """Only with its local state in the same place a database can stay open."""
    (one,) = config("a").databases
    (two,) = config("a retention: 2h").databases
    (elsewhere,) = loads("dbs: [{path: /d/a, meta-path: /m, replica: {path: /r/a}}]").databases
    assert not needs_new_start(one, two)
    assert needs_new_start(one, elsewhere)
