"""`layercast bench`: speed, accuracy and memory against stock PyTorch, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layercast.errors import ValueRangeError

if TYPE_CHECKING:
    from layercast.bench.case import Case

EPILOG = """[bold]Examples[/bold]

The short set, about a minute:

  $ layercast bench

Every shape of `linear` at batch 1 and 8, kept as a record:

  $ layercast bench --only linear --rows 1,8 --json linear.json
"""


def bench(
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            help="An operation: linear, attention, rms_norm, rotary, silu, log_softmax, argmax, "
            "or of a whole model: decode, prefill, memory. May be given several times; all its "
            "shapes are measured.",
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option("--rows", help="Only cases with so many rows (batch at decode), e.g. 1,8."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Every case: some ten minutes, 9 GB of memory.")
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", help="Threads of torch and of layercast; torch's own if not given."
        ),
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="Write records here. A file of an earlier run keeps its other cases; in a folder "
            "the file is named for this processor.",
        ),
    ] = None,
    list_cases: Annotated[bool, typer.Option("--list", help="Only list the cases.")] = False,
) -> None:
    """Measure layercast against stock PyTorch: bf16, FP32, and LayerCast as published.

    Each result is checked before it is timed: bits against the definition, accuracy against
    float64. Variants take turns; weights are read from memory, not from a cache.
    """
    chosen_rows = _rows(rows)
    # Imported here: a help page needs no torch.
    from layercast.bench.registry import select

    cases = select(only=only or (), rows=chosen_rows, full=full)
    if list_cases:
        for case in cases:
            typer.echo(case.label)
        return
    if threads is not None and threads < 1:
        raise ValueRangeError(
            f"bench: `--threads` must be at least 1, got {threads}. Leave it out for torch's own."
        )
    _measure(cases, threads, json_path)


def _measure(cases: tuple[Case, ...], threads: int | None, json_path: Path | None) -> None:
    import torch
    from rich.console import Console

    from layercast.bench import environment, records
    from layercast.bench.runner import run
    from layercast.bench.table import print_results
    from layercast.bench.timing import Schedule
    from layercast.bench.workspace import Workspace

    if threads is not None:
        torch.set_num_threads(threads)
    schedule, found = Schedule(), []
    with Workspace() as workspace, Console(stderr=True).status("") as status:
        before, context, path = None, None, None
        if json_path is not None:
            context = environment.context() | {"method": records.method(schedule, workspace)}
            path = records.result_path(json_path, context)
            before = records.read(path)
        for measurement in run(
            cases,
            workspace,
            schedule,
            on_stage=lambda case, stage: status.update(f"{case.label}: {stage}"),
        ):
            found.append(measurement)
            if path is not None and context is not None:
                # After each case: what was measured is kept, whatever ends the run.
                records.write(path, records.merge(before, context, found))
    print_results(found)
    if path is not None:
        typer.echo(f"Records: {path}")


def _rows(text: str | None) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise ValueRangeError(
            f"bench: `--rows` must be numbers with commas between, got {text!r}. Write 1,8."
        ) from error
