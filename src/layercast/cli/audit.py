"""`layercast audit`: which operations of a model the bitwise guarantee covers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any

import typer

from layercast.errors import ValueRangeError

DECODING: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False, "num_beams": 1},
    "sample": {"do_sample": True, "num_beams": 1},
    "beam": {"do_sample": False, "num_beams": 2},
}
NOT_COVERED = 3

EPILOG = """[bold]Examples[/bold]

A checkpoint on the hub, of which config.json alone is fetched:

  $ layercast audit Qwen/Qwen2.5-7B-Instruct

A folder, with sampling in place of greedy decoding, for a script:

  $ layercast audit ./my-model --decoding sample --json

[bold]Exit status[/bold]: 0 covered, 3 not covered, 1 no audit was possible.
"""


def audit(
    model: Annotated[
        str, typer.Argument(help="Folder or hub id of a checkpoint; `testbed` is the bundled one.")
    ],
    decoding: Annotated[
        str, typer.Option(help="What `generate` does in the audit: greedy, sample or beam.")
    ] = "greedy",
    kv_dtype: Annotated[
        str | None, typer.Option(help="Storage of keys and values, as in LayerCastConfig.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of the hub repository.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the model code of the repository.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Tell which operations the guarantee covers, from config.json, in seconds, without weights."""
    if decoding not in DECODING:
        raise ValueRangeError(
            f"audit: `--decoding` must be one of {', '.join(DECODING)}, got {decoding!r}. "
            "Correct the name."
        )
    # Imported here: a help page needs no torch.
    from rich.console import Console
    from transformers import GenerationConfig
    from transformers.utils.logging import disable_progress_bar

    from layercast import testbed
    from layercast.integrations.transformers.config import LayerCastConfig
    from layercast.integrations.transformers.shrunken import audit_checkpoint

    disable_progress_bar()
    found = audit_checkpoint(
        testbed.path() if model == "testbed" else model,
        generation_config=GenerationConfig(**DECODING[decoding]),
        quantization_config=None if kv_dtype is None else LayerCastConfig(kv_dtype=kv_dtype),
        trust_remote_code=trust_remote_code,
        **({} if revision is None else {"revision": revision}),
    )
    report = replace(found, model=model)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        Console().print(report)
    if not report.covered:
        raise typer.Exit(NOT_COVERED)
