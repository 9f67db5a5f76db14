"""`litestream prune`: retention with other credentials than the replicator's, on another machine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from litestream.cli import stdout
from litestream.cli.common import COMMON, JSON, REPLICA, TARGET_MISSING, Target, open_target, run_to_end, tell_warnings
from litestream.cli.flags import Flag, FlagSet, Parsed
from litestream.cli.generations import shown_lag
from litestream.cli.listing import read_overview, shown_time
from litestream.core.durations import format_duration, parse_duration
from litestream.core.position import SnapshotInfo
from litestream.errors import ConfigError, LitestreamError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litestream.client import ReplicaClient
    from litestream.replica.prune import Doomed, Pruned, PrunePlan

FLAGS = FlagSet(
    verb="prune",
    usage="prune [flags] DB_PATH\nprune [flags] -retention DURATION REPLICA_URL",
    about=(
        "Delete what is older than the retention from a replica, for a replicator that must not delete. Without\n"
        "-execute it only shows what would be deleted. A replicator may be running: what a kept snapshot needs, the\n"
        "generation in use and objects younger than 1 h are never deleted."
    ),
    flags=(
        *COMMON,
        REPLICA,
        Flag(
            "retention",
            "How long snapshots, and what follows them, are kept.",
            "DURATION",
            default="as configured; needed with a URL",
        ),
        Flag("execute", "Delete, instead of showing what would be deleted."),
        JSON,
    ),
    min_args=1,
    max_args=1,
    missing=TARGET_MISSING,
    examples="""
litestream prune -retention 168h s3://backups/app
litestream prune -retention 168h -execute s3://backups/app
""",
)


@dataclass(slots=True)
class _Outcome:
    """What happened to one replica."""

    name: str
    url: str
    retention: float
    now: float
    plan: PrunePlan
    done: Pruned | None = None
    """None where nothing was to be done but show it."""
    uploads: int = 0
    """Abandoned multipart uploads that were removed."""
    probes: int = 0
    """Objects of `check` that were removed."""
    leases: int = 0
    """Objects of leases that are over, removed."""
    notes: list[str] = field(default_factory=list)

    @property
    def shown(self) -> Sequence[Doomed]:
        """The objects that are worth a line: what would go, or what did not."""
        if self.done is None:
            return self.plan.objects
        return [doomed for doomed, _ in self.done.refused] + self.done.kept


def run(parsed: Parsed) -> int:
    given = _given_retention(parsed)
    outcomes, code = run_to_end(_prune_all(parsed, given))
    if parsed.switch("json"):
        from litestream.cli.tables import write_json

        write_json([_document(outcome) for outcome in outcomes])
    return code


def _given_retention(parsed: Parsed) -> float:
    """Seconds of the flag; 0 if it was not given."""
    if not parsed.given("retention"):
        return 0.0
    retention = parse_duration(parsed.text("retention"))
    if retention <= 0:
        raise ConfigError("the -retention flag must be longer than 0s: what is kept for ever needs no prune")
    return retention


async def _prune_all(parsed: Parsed, given: float) -> tuple[list[_Outcome], int]:
    from litestream.cli import fail

    outcomes: list[_Outcome] = []
    code = 0
    async with open_target(parsed) as target:
        tell_warnings(target.config)
        for name, client in target.replicas:
            try:
                retention = given or _configured(target, name)
                outcome = await _prune(parsed, name, client, retention)
            except LitestreamError as e:
                code = fail(f"replica {name}: {e}")
                continue
            outcomes.append(outcome)
            if not parsed.switch("json"):
                _tell(outcome)
            for text in _failures(outcome):
                code = fail(f"replica {name}: {text}")
    return outcomes, code


def _configured(target: Target, name: str) -> float:
    if target.database is None:
        raise ConfigError("how long is to be kept? Give it with -retention, such as -retention 168h")
    retention = next(replica.retention for replica in target.database.replicas if replica.label == name)
    if retention <= 0:
        raise ConfigError("the configured retention is 0, which keeps everything: give another one with -retention")
    return retention


async def _prune(parsed: Parsed, name: str, client: ReplicaClient, retention: float) -> _Outcome:
    from litestream.replica.prune import GRACE, plan_prune, prune

    now = time.time()
    overview = await read_overview(client)
    outcome = _Outcome(name, client.store.url, retention, now, plan_prune(overview, now, retention))
    if retention < GRACE:
        outcome.notes.append(f"a retention of less than {format_duration(GRACE)} counts as {format_duration(GRACE)}")
    if not overview:
        outcome.notes.append("there is nothing in this replica")
    elif outcome.plan.need_snapshot:
        outcome.notes.append(
            f"no snapshot is younger than {format_duration(max(retention, GRACE))}, so that nothing may be deleted "
            "yet: the replicator takes snapshots by itself if its snapshot-interval is shorter than the retention"
        )
    if parsed.switch("execute"):
        outcome.done = await prune(client, outcome.plan)
        if outcome.done.error is None:
            await _clean_up(client, outcome)
    return outcome


async def _clean_up(client: ReplicaClient, outcome: _Outcome) -> None:
    """Remove what a writer without the right to delete leaves: uploads that were broken off, objects of `check` and of
    leases that are over."""
    from litestream.replica.prune import remove_old_leases
    from litestream.storage.probe import remove_leftovers
    from litestream.storage.wrappers.wrap import innermost

    try:
        outcome.probes = await remove_leftovers(client.store)
        outcome.leases = await remove_old_leases(client)
        clean_up = getattr(innermost(client.store), "clean_up", None)
        if clean_up is not None:
            outcome.uploads = await clean_up()
    except LitestreamError as e:
        outcome.notes.append(f"what was left of checks, leases and abandoned uploads may stay: {e}")


def _failures(outcome: _Outcome) -> list[str]:
    if outcome.done is None:
        return []
    failures = []
    if outcome.done.refused:
        _, error = outcome.done.refused[0]
        failures.append(f"{_count(len(outcome.done.refused), 'object')} could not be deleted: {error}")
    if outcome.done.error is not None:
        failures.append(str(outcome.done.error))
    return failures


def _tell(outcome: _Outcome) -> None:
    from litestream.cli.tables import table
    from litestream.daemon.logs import safe

    lines = [f"replica {outcome.name}: {outcome.url}, retention {format_duration(outcome.retention)}"]
    lines += _sums(outcome)
    lines += outcome.notes
    text = "".join(f"{safe(line)}\n" for line in lines)
    if outcome.shown:
        rows = [_row(doomed, outcome.now) for doomed in outcome.shown]
        text = table(["generation", "kind", "index", "offset", "size", "age"], rows) + "\n" + text
    stdout.write(text)


def _sums(outcome: _Outcome) -> list[str]:
    from litestream.replica.prune import total_size

    plan, done = outcome.plan, outcome.done
    objects = plan.objects if done is None else done.deleted
    snapshots = sum(isinstance(doomed.info, SnapshotInfo) for doomed in objects)
    kinds = f"{_count(snapshots, 'snapshot')}, {_count(len(objects) - snapshots, 'WAL segment')}"
    verb = "would delete" if done is None else "deleted"
    lines = [f"{verb} {_count(len(objects), 'object')} ({kinds}), {total_size(objects)} bytes"]
    if plan.recent:
        lines.append(f"{_count(plan.recent, 'object')} will go later: too young now, or in a generation with such ones")
    if done is not None and done.kept:
        lines.append(f"kept {_count(len(done.kept), 'object')}: needed by a snapshot that was refused, or in use again")
    if outcome.uploads:
        lines.append(f"removed {_count(outcome.uploads, 'abandoned upload')}")
    if outcome.probes:
        lines.append(f"removed {_count(outcome.probes, 'object')} of `litestream check`")
    if outcome.leases:
        lines.append(f"removed {_count(outcome.leases, 'object')} of leases that are over")
    if done is None and objects:
        lines.append("nothing was deleted: add -execute")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _row(doomed: Doomed, now: float) -> list[str]:
    info = doomed.info
    kind, offset = ("snapshot", "-") if isinstance(info, SnapshotInfo) else ("wal", f"{info.offset:08x}")
    age = shown_lag(now - info.created_at)
    return [info.generation, kind, f"{info.index:08x}", offset, str(info.size), age]


def _document(outcome: _Outcome) -> dict[str, object]:
    """The JSON form."""
    from litestream.replica.prune import total_size

    plan, done = outcome.plan, outcome.done
    status = dict.fromkeys((doomed.key for doomed in plan.objects), "would delete" if done is None else "not tried")
    errors: dict[str, str] = {}
    if done is not None:
        status |= dict.fromkeys((doomed.key for doomed in done.deleted), "deleted")
        status |= dict.fromkeys((doomed.key for doomed in done.kept), "kept")
        status |= dict.fromkeys((doomed.key for doomed, _ in done.refused), "refused")
        errors = {doomed.key: str(error) for doomed, error in done.refused}
    objects = []
    for doomed in plan.objects:
        info = doomed.info
        is_snapshot = isinstance(info, SnapshotInfo)
        entry: dict[str, object] = {
            "key": doomed.key,
            "generation": info.generation,
            "kind": "snapshot" if is_snapshot else "wal",
            "index": f"{info.index:08x}",
            "offset": None if isinstance(info, SnapshotInfo) else f"{info.offset:08x}",
            "size": info.size,
            "created": shown_time(info.created_at),
            "age_seconds": round(outcome.now - info.created_at, 3),
            "status": status[doomed.key],
        }
        if doomed.key in errors:
            entry["error"] = errors[doomed.key]
        objects.append(entry)
    return {
        "replica": outcome.name,
        "url": outcome.url,
        "retention_seconds": outcome.retention,
        "execute": done is not None,
        "objects": objects,
        "size": total_size(plan.objects),
        "deleted": 0 if done is None else len(done.deleted),
        "refused": 0 if done is None else len(done.refused),
        "too_recent": plan.recent,
        "uploads_removed": outcome.uploads,
        "probes_removed": outcome.probes,
        "leases_removed": outcome.leases,
        "error": None if done is None or done.error is None else str(done.error),
        "notes": outcome.notes,
    }
