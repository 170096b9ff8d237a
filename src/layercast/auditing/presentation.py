"""A report as text and as rich tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from layercast.auditing.report import AuditReport, Exercise, Guarantee

if TYPE_CHECKING:
    from rich.console import Group


def as_text(report: AuditReport) -> str:
    """The report in lines of plain text.

    Args:
        report: Any.

    Returns:
        The verdict first, then findings, promises, and how the model was run.
    """
    lines = [headline(report)]
    for finding in report.uncovered:
        lines.append(f"  - {finding}")
    for rounding in report.roundings:
        lines.append(
            f"  ~ {rounding.operation} in {rounding.module}: activations rounded, {rounding.what}."
        )
    lines.append("Guarantees:")
    for words, holds, reason in _joined(report.guarantees):
        lines.append(f"  {'yes' if holds else 'no '} {words}: {reason}")
    lines.append("Exercised:")
    for exercise in report.exercised:
        lines.append(f"  {exercise.name}: {exercise.detail}{_outcome(exercise)}")
    lines += [f"Note: {note}" for note in report.notes]
    return "\n".join(lines)


def headline(report: AuditReport) -> str:
    """The verdict in one line.

    Args:
        report: Any.

    Returns:
        Model, verdict and counts.
    """
    ours = sum(count.calls for count in report.operations if count.kind == "ours")
    calls = sum(count.calls for count in report.operations)
    if report.covered:
        return (
            f"{report.model}: covered. All {calls} operations are layercast's ({ours}) or exact by "
            "IEEE 754."
        )
    modules = len({finding.module for finding in report.uncovered})
    return (
        f"{report.model}: NOT covered. {len(report.uncovered)} "
        f"{'kind' if len(report.uncovered) == 1 else 'kinds'} of operation in {modules} "
        f"{'module' if modules == 1 else 'modules'}, of {calls} operations run:"
    )


def _joined(guarantees: Sequence[Guarantee]) -> Iterator[tuple[str, bool, str]]:
    """Neighbouring promises with the same answer in one row."""
    for (holds, reason), rows in groupby(guarantees, lambda row: (row.holds, row.reason)):
        yield ", ".join(row.word for row in rows), holds, reason


def _outcome(way: Exercise) -> str:
    if way.refused:
        return f", refused: {way.refused}"
    return f", failed: {way.failed}" if way.failed else ""


def as_renderable(report: AuditReport) -> Group:
    """The report for a rich console.

    Args:
        report: Any.

    Returns:
        The verdict, a table of findings if there are any, and a table of promises.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Text | Table] = [
        Text(headline(report), style="bold green" if report.covered else "bold red")
    ]
    if report.uncovered:
        table = Table("operation", "module", "why", "called from", box=None, pad_edge=False)
        for finding in report.uncovered:
            remedy = f"\ninstead: {finding.remedy}" if finding.remedy else ""
            row = (finding.operation, finding.module, finding.reason + remedy, finding.source)
            table.add_row(*map(Text, row))
        parts.append(table)
    for rounding in report.roundings:
        parts.append(Text(f"rounded in {rounding.module}: {rounding.what} ({rounding.source})"))
    promises = Table("guarantee", "holds", "why", box=None, pad_edge=False)
    for words, holds, reason in _joined(report.guarantees):
        answer = Text("yes", style="green") if holds else Text("no", style="red")
        promises.add_row(Text(words), answer, Text(reason))
    parts.append(promises)
    ways = "; ".join(f"{way.name} ({way.detail}{_outcome(way)})" for way in report.exercised)
    parts.append(Text(f"exercised: {ways}"))
    parts += [Text(f"note: {note}") for note in report.notes]
    return Group(*parts)
