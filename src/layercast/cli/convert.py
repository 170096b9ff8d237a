"""`layercast convert`: a checkpoint that later loads need no argument for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """[bold]Examples[/bold]

A checkpoint on the hub, its weights bit for bit:

  $ layercast convert Qwen/Qwen2.5-0.5B-Instruct ./qwen-layercast

One stored in float32, rounded to 16 bits on purpose:

  $ layercast convert ./my-fp32-model ./my-model --weight-dtype bfloat16
"""


def convert(
    model: Annotated[
        str, typer.Argument(help="Folder or hub id of a checkpoint; `testbed` is the bundled one.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write: new, or empty.")],
    weight_dtype: Annotated[
        str | None,
        typer.Option(help="Round every weight to bfloat16 or float16; kept as they are if not."),
    ] = None,
    link: Annotated[
        bool,
        typer.Option(
            "--link", help="Link the weight files in place of copying; then never edit them."
        ),
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Of the hub repository.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the model code of the repository.")
    ] = False,
) -> None:
    """Write MODEL with a config.json that names the method; weights keep their bits."""
    # Imported here: a help page needs no torch.
    from transformers.utils.logging import disable_progress_bar

    from layercast import testbed
    from layercast.checkpoints import convert as write

    disable_progress_bar()
    written = write(
        testbed.path() if model == "testbed" else model,
        out,
        weight_dtype=weight_dtype,
        link=link,
        trust_remote_code=trust_remote_code,
        **({} if revision is None else {"revision": revision}),
    )
    count = len(written.weight_files)
    files = "1 weight file" if count == 1 else f"{count} weight files"
    size = f"{files}, {written.weight_bytes / 1e6:,.1f} MB"
    if weight_dtype is None:
        typer.echo(f"Checkpoint: {written.folder} ({size}, bit for bit)")
    else:
        typer.echo(f"Checkpoint: {written.folder} ({size})")
        typer.echo(
            f"Rounded to {weight_dtype}: {written.changed:,} of {written.values:,} values changed."
        )
