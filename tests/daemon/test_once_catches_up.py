"""Between two runs of `replicate -once` the application may start its WAL over."""

from __future__ import annotations

from helpers.cli import OURS
from helpers.rig import Rig


def test_the_next_run_sends_what_differs(rig: Rig) -> None:
    """After a checkpoint between two runs the generation is the same, and the second run sends a few pages only."""
    app = rig.apps().create(rig.db)
    app.fill(3000)
    app.checkpoint("TRUNCATE")
    assert OURS.run("replicate", "-once", str(rig.db), rig.url).code == 0
    before, sent = rig.generations(), sum(path.stat().st_size for path in rig.objects())
    app.ledger(2)
    app.checkpoint("TRUNCATE")
    app.ledger(1)
    app.checkpoint("TRUNCATE")
    assert OURS.run("replicate", "-once", str(rig.db), rig.url).code == 0
    assert rig.generations() == before
    assert sum(path.stat().st_size for path in rig.objects()) - sent < sent / 4
    rig.converge()
