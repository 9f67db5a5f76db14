"""What `litestream verify` found out, as a table, as sentences and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from litestream.cli import fail, stdout, warn
from litestream.cli.tables import table
from litestream.core.timestamps import format_rfc3339
from litestream.daemon.logs import safe
from litestream.verify.model import Report, Status

if TYPE_CHECKING:
    from litestream.verify.model import GenerationReport, Span

_SHOWN = 20
"""Problems of one replica that are printed one by one; JSON has all of them."""


@dataclass(frozen=True, slots=True)
class Verified:
    """One replica's report, and the path of its database (empty for a URL)."""

    database: str
    report: Report

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.database}({self.report.replica})" if self.database else self.report.replica


def exit_code(results: Sequence[Verified]) -> int:
    """1 if any replica is proved to be bad, 2 if only something could not be told, 0 if all are sound."""
    found = {result.report.status for result in results}
    return 1 if Status.FAILED in found else 2 if Status.UNKNOWN in found else 0


def tell(verified: Verified, *, quiet: bool, first: bool) -> None:
    """Table and summary on stdout (unless `quiet`), what is wrong and what could not be told on stderr."""
    report = verified.report
    if not quiet:
        text = "" if first else "\n"
        if report.generations:
            text += table(["generation", "objects", "checked", "from", "to", "until"], _rows(report)) + "\n"
        text += "".join(f"{safe(line)}\n" for line in _summary(verified))
        stdout.write(text)
        stdout.flush()
    problems = report.problems()
    for problem in problems[:_SHOWN]:
        fail(f"{verified.name}: {problem}")
    if len(problems) > _SHOWN:
        fail(f"{verified.name}: and {len(problems) - _SHOWN} more (-json names all of them)")
    for doubt in report.doubts():
        warn(f"{verified.name}: could not tell: {doubt}")


def _rows(report: Report) -> list[list[str]]:
    rows = []
    for found in report.generations:
        head = [found.generation, str(found.objects), str(found.checked)]
        rows += [[*head, *_times(span), f"{span.last.index:08x}:{span.last.offset:08x}"] for span in found.spans]
        if not found.spans:
            rows.append([*head, "-", "-", "nothing can be restored"])
    return rows


def _times(span: Span) -> list[str]:
    return [format_rfc3339(nanoseconds, fraction=False) for nanoseconds in (span.first_ns, span.last_ns)]


def _summary(verified: Verified) -> list[str]:
    report = verified.report
    lines = [f"replica {verified.name}: {report.status.value}" + (f", {report.url}" if report.url else "")]
    if report.restored is not None:
        integrity = "integrity check ok" if not report.restored.integrity else "integrity check failed"
        lines.append(f"restored {report.restored.size} bytes at {report.restored.pos}: {integrity}")
    comparison = report.comparison
    if comparison is not None:
        outcome = "equal" if comparison.equal else f"{comparison.different} differ"
        lines.append(f"compared {comparison.pages} pages with the live database at {comparison.pos}: {outcome}")
    return lines + [f"note: {note}" for note in report.notes]


def document(verified: Verified) -> dict[str, object]:
    """The JSON form."""
    report = verified.report
    restored, comparison = report.restored, report.comparison
    return {
        "database": verified.database or None,
        "replica": report.replica,
        "url": report.url,
        "status": report.status.value,
        "generations": [_generation(found) for found in report.generations],
        "restored": None
        if restored is None
        else {"pos": str(restored.pos), "size": restored.size, "integrity": list(restored.integrity) or ["ok"]},
        "compared": None
        if comparison is None
        else {
            "pos": str(comparison.pos),
            "pages": comparison.pages,
            "different": comparison.different,
            "first_different": list(comparison.first),
        },
        "failures": [{"key": problem.key or None, "reason": problem.reason} for problem in report.problems()],
        "could_not_tell": report.doubts(),
        "notes": list(report.notes),
    }


def _generation(found: GenerationReport) -> dict[str, object]:
    return {
        "generation": found.generation,
        "objects": found.objects,
        "checked": found.checked,
        "size": found.size,
        "restorable": [
            {
                "first": str(span.first),
                "last": str(span.last),
                "from": format_rfc3339(span.first_ns, fraction=True),
                "to": format_rfc3339(span.last_ns, fraction=True),
            }
            for span in found.spans
        ],
        "failures": [{"key": problem.key, "reason": problem.reason} for problem in found.problems],
    }
