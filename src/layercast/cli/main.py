"""Entry point of the command: the verbs, and the one place where errors become a line."""

from __future__ import annotations

import os
import sys

import typer

from layercast.cli import audit as audit_verb
from layercast.cli import bench as bench_verb
from layercast.cli import compare as compare_verb
from layercast.cli import convert as convert_verb
from layercast.cli import env as env_verb
from layercast.cli import generate as generate_verb
from layercast.cli import lm_eval as lm_eval_verb
from layercast.cli import serve as serve_verb
from layercast.cli.study import study_app
from layercast.errors import LayercastError
from layercast.version import __version__

app = typer.Typer(
    name="layercast",
    help="Reproducible LLM inference, and the instrument that measures whether it is so.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("generate", epilog=generate_verb.EPILOG)(generate_verb.generate)
app.command("convert", epilog=convert_verb.EPILOG)(convert_verb.convert)
app.command("compare", epilog=compare_verb.EPILOG)(compare_verb.compare)
app.command("audit", epilog=audit_verb.EPILOG)(audit_verb.audit)
app.command("bench", epilog=bench_verb.EPILOG)(bench_verb.bench)
app.command("lm-eval", context_settings=lm_eval_verb.CONTEXT)(lm_eval_verb.lm_eval)
app.command("serve", epilog=serve_verb.EPILOG, context_settings=serve_verb.CONTEXT)(
    serve_verb.serve
)
app.command("env", epilog=env_verb.EPILOG)(env_verb.env)
app.add_typer(study_app, name="study")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"layercast {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Reproducible LLM inference: 16-bit weights, FP32 arithmetic, the same bits every time."""


def main() -> None:
    """Run the command; an error of ours is one line on stderr and exit status 1."""
    try:
        app()
    except LayercastError as error:
        print(f"layercast: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("layercast: interrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (`layercast ... | head`): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
