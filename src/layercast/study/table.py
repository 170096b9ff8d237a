"""The result table on a terminal: metrics x precisions, narrow enough for 80 columns."""

from __future__ import annotations

import math
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from layercast.study.bootstrap import Estimate
from layercast.study.metrics import NO_DIVERGENCE
from layercast.study.summary import PrecisionSummary, StudySummary

_ROWS: tuple[tuple[str, Callable[[PrecisionSummary], str]], ...] = (
    ("accuracy, %", lambda p: _fixed(p.accuracy, 1)),
    ("Std@Acc, pp", lambda p: _fixed(p.std_at_acc, 2)),
    ("Avg_Std@Output_Length, tokens", lambda p: _fixed(p.avg_std_output_length, 2)),
    ("Div_Index, tokens", lambda p: _div_index(p.div_index)),
    ("Div_Percent, %", lambda p: _fixed(p.div_percent, 1)),
    ("Avg_Std@top1_prob", lambda p: _scientific(p.avg_std_top1_prob)),
    ("every log-prob bit equal", lambda p: _bits(p)),
)


def result_table(summary: StudySummary) -> Table:
    """Return the table: a metric a row, its 95 % bootstrap interval under each figure."""
    counts = sorted({len(precision.configurations) for precision in summary.precisions})
    table = Table(
        title=f"{len(summary.problem_ids)} problems × {' or '.join(map(str, counts))} "
        "configurations",
        caption="under each figure: 95 % bootstrap interval over problems",
        show_lines=True,
    )
    table.add_column("metric", no_wrap=True)
    for precision in summary.precisions:
        table.add_column(precision.precision, justify="right", no_wrap=True)
    for label, cell in _ROWS:
        table.add_row(label, *(cell(precision) for precision in summary.precisions))
    return table


def print_table(summary: StudySummary, console: Console | None = None) -> None:
    """Print the table and the notes a reader must know."""
    console = console or Console()
    console.print(result_table(summary))
    for note in summary.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def _fixed(estimate: Estimate, digits: int) -> str:
    return _format(estimate, lambda value: f"{value:.{digits}f}")


def _scientific(estimate: Estimate) -> str:
    return _format(estimate, lambda value: f"{value:.1e}" if value else "0")


def _div_index(estimate: Estimate) -> str:
    return "-1 (none)" if estimate.value == NO_DIVERGENCE else _fixed(estimate, 1)


def _format(estimate: Estimate, write: Callable[[float], str]) -> str:
    if math.isnan(estimate.value):
        return "n/a"
    return f"{write(estimate.value)}\n[dim]{write(estimate.low)}–{write(estimate.high)}[/dim]"


def _bits(precision: PrecisionSummary) -> str:
    if precision.bits_equal is None:
        return "n/a"
    if not precision.bits_equal:
        return f"no\n[dim]{precision.bit_div_percent.value:.0f} % differ[/dim]"
    compared = precision.logprobs_compared
    if compared is None:
        return f"yes\n[dim]{precision.positions_compared:,} rows[/dim]"
    return f"yes\n[dim]all {compared:,}[/dim]"
