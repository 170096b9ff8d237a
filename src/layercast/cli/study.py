"""`layercast study run` and `layercast study report`: the experiment, and its page."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from layercast.errors import ValueRangeError

study_app = typer.Typer(
    help="Measure how much of an evaluation's number is rounding.", no_args_is_help=True
)

RUN_EPILOG = """[bold]Examples[/bold]

The bundled study on this CPU; killed and started again, it goes on where it was:

  $ layercast study run --out runs/bundled

A server, asked as many questions at once as the plan's batch sizes say:

  $ layercast study run plan.toml --endpoint http://localhost:8000/v1 --model Qwen/Qwen3-8B

A plan of your own, two precisions of it, eight problems, to see that it works:

  $ layercast study run plan.toml --out runs/try --precision bf16 --precision layercast --problems 8
"""

REPORT_EPILOG = """[bold]Examples[/bold]

One page for a run, or for the same plan run on two machines:

  $ layercast study report runs/a100 runs/l40s --out report.html

In continuous integration, red once an answer changes:

  $ layercast study report runs/ci --format json --fail-if "layercast:div_percent>0"
"""


MERGE_EPILOG = """[bold]Examples[/bold]

Two precisions of one plan, run at different times:

  $ layercast study merge runs/bf16 runs/layercast --out runs/both

Every part of a run that was split over folders:

  $ layercast study merge runs/part-* --out runs/whole
"""


# Module and function by format: one that is not asked for is not imported.
_REPORT_WRITERS = {
    "html": ("layercast.study.report.write", "write_report"),
    "md": ("layercast.study.report.markdown", "write_markdown"),
    "json": ("layercast.study.export", "write_json_summary"),
    "csv": ("layercast.study.export", "write_csv_summary"),
}


_Endpoint = Annotated[
    str | None,
    typer.Option(help="Ask this OpenAI-compatible server in place of the plan's engine."),
]
_ServedModel = Annotated[
    str | None, typer.Option(help="With --endpoint: the name the server knows the model by.")
]
_Api = Annotated[str, typer.Option(help="With --endpoint: chat or completions.")]
_KeyVariable = Annotated[
    str | None, typer.Option(help="With --endpoint: the environment variable that holds the key.")
]
_Retries = Annotated[
    int, typer.Option(min=0, help="Try a batch so often again whose process crashed.")
]
_Launcher = Annotated[
    str, typer.Option(help="Where workers run: local, this machine; or ray, a Ray cluster.")
]
_RayAddress = Annotated[
    str | None, typer.Option(help="With --launcher ray: of the cluster. [RAY_ADDRESS, or here]")
]
_RetryFailed = Annotated[
    bool,
    typer.Option("--retry-failed", help="Ask again where a server's answer never arrived."),
]


@study_app.command("run", epilog=RUN_EPILOG)
def run(
    plan: Annotated[
        Path | None, typer.Argument(help="Plan (TOML); without one, the bundled study.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Run folder; a started one is resumed.")
    ] = Path("runs/bundled"),
    precision: Annotated[
        list[str] | None,
        typer.Option(help="Only this precision of the plan; may be given several times."),
    ] = None,
    problems: Annotated[
        int | None, typer.Option(help="Only the first so many problems of the task.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Another task than the plan's; see docs/tasks.md.")
    ] = None,
    task_file: Annotated[
        Path | None,
        typer.Option(help="Read the problems from this file, not from the hub (offline)."),
    ] = None,
    grader: Annotated[
        str | None, typer.Option(help="For --task local: math, choice, exact or code.")
    ] = None,
    allow_code_execution: Annotated[
        bool,
        typer.Option(
            "--allow-code-execution", help="Grade programs by running them, in a sandbox."
        ),
    ] = False,
    code_isolation: Annotated[
        str | None,
        typer.Option(help="Sandbox: auto, namespaces, bubblewrap; or none, limits alone. [auto]"),
    ] = None,
    endpoint: _Endpoint = None,
    model: _ServedModel = None,
    api: _Api = "chat",
    api_key_variable: _KeyVariable = None,
    retries: _Retries = 1,
    retry_failed: _RetryFailed = False,
    launcher: _Launcher = "local",
    ray_address: _RayAddress = None,
) -> None:
    """Run every configuration of a plan and print the table of what moved."""
    from rich.console import Console

    from layercast.study.endpoint_plan import for_endpoint
    from layercast.study.plan import load_plan
    from layercast.study.progress import format_duration, open_progress
    from layercast.study.runner import run_study
    from layercast.study.summary import summarise
    from layercast.study.table import print_table

    if code_isolation is not None and not allow_code_execution:
        raise ValueRangeError(
            f"study run: `--code-isolation` must come with --allow-code-execution, got "
            f"{code_isolation!r} alone. Give both, or neither."
        )
    chosen = load_plan(plan).narrowed(precisions=precision, problems=problems)
    chosen = chosen.asking(task, file=None if task_file is None else str(task_file), grader=grader)
    if endpoint is not None:
        chosen = for_endpoint(
            chosen, endpoint, model=model, api=api, api_key_variable=api_key_variable
        )
    _require_with_endpoint(endpoint, {"--model": model, "--api-key-variable": api_key_variable})
    result = run_study(
        chosen,
        out,
        retries=retries,
        retry_failed=retry_failed,
        progress=open_progress(Console(stderr=True)),
        code_isolation=(code_isolation or "auto") if allow_code_execution else None,
        launcher=launcher,
        ray_address=ray_address,
    )
    for failure in result.failures:
        typer.echo(f"layercast: {failure}", err=True)
    if result.batches_kept + result.batches_computed:
        print_table(summarise([result.folder]))
    computed = f"{result.batches_computed} batches computed, {result.batches_kept} kept"
    typer.echo(f"Records: {result.folder} ({computed}, {format_duration(result.seconds)})")
    if not result.complete:
        raise typer.Exit(1)


def _require_with_endpoint(endpoint: str | None, options: dict[str, str | None]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if endpoint is None and given:
        raise ValueRangeError(
            f"study run: `{given[0]}` must come with --endpoint, got none. Write it into the plan."
        )


@study_app.command("report", epilog=REPORT_EPILOG)
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of the same plan.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write [report.html]")
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="html, one page; md, for a model card; json or csv, the figures alone.",
        ),
    ] = "html",
    fail_if: Annotated[
        list[str] | None,
        typer.Option(help="Exit with 1 if so, e.g. layercast:div_percent>0; may be repeated."),
    ] = None,
) -> None:
    """Write one self-contained page, or the figures alone, from the records."""
    from layercast.study.gates import failures, parse_gate
    from layercast.study.summary import summarise

    if form not in _REPORT_WRITERS:
        raise ValueRangeError(
            f"report: `--format` must be html, md, json or csv, got {form!r}. Correct the name."
        )
    gates = [parse_gate(text) for text in fail_if or []]
    out = out or Path(f"report.{form}")
    module, writer = _REPORT_WRITERS[form]
    getattr(importlib.import_module(module), writer)(runs, out)
    typer.echo(f"Report: {out.resolve()}")
    failed = failures(gates, summarise(runs)) if gates else []
    for failure in failed:
        typer.echo(f"layercast: --fail-if {failure}", err=True)
    if failed:
        raise typer.Exit(1)


@study_app.command("merge", epilog=MERGE_EPILOG)
def merge(
    parts: Annotated[list[Path], typer.Argument(help="Run folders of one plan on one device.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder to make.")],
) -> None:
    """Make one run folder of partial runs: other precisions, configurations or batches."""
    from layercast.study.merge import merge_runs

    result = merge_runs(parts, out)
    twice = f", {result.found_twice} found twice and alike" if result.found_twice else ""
    typer.echo(f"Records: {result.folder} ({result.batches} batches{twice})")
