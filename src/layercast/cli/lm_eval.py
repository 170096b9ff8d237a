"""`layercast lm-eval`: lm-eval's command line, with our model registered."""

from __future__ import annotations

import typer

CONTEXT = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def lm_eval(context: typer.Context) -> None:
    """Evaluate by lm-eval: its own options (`layercast lm-eval run --help`), our model."""
    from layercast.integrations.lm_eval import run

    run(context.args)
