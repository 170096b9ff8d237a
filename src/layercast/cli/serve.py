"""`layercast serve`: transformers' OpenAI-compatible server over a converted checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

CONTEXT = {"ignore_unknown_options": True, "allow_extra_args": True}

EPILOG = """[bold]Examples[/bold]

A checkpoint that `layercast convert` wrote, requests sharing each step:

  $ layercast serve ./my-layercast-model --continuous-batching

On another port; further options are those of `transformers serve --help`:

  $ layercast serve ./my-layercast-model --port 8001
"""


def serve(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="Folder or hub id of a checkpoint that names the method.")
    ],
) -> None:
    """Serve a converted checkpoint by the server of transformers, with its options."""
    from layercast.integrations.transformers.serving import serve as start

    start(model, context.args)
