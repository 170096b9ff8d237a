"""`layercast env`: what a bug report needs."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

EPILOG = """[bold]Examples[/bold]

For a person:

  $ layercast env

For a bug report, or to compare two machines with diff:

  $ layercast env --json > env.json
"""


def env(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print versions, processor, instruction set and the settings that can change bits."""
    facts = _facts()
    if as_json:
        typer.echo(json.dumps(facts, indent=2, sort_keys=True))
        return
    for line in _lines(facts):
        typer.echo(line)


def _facts() -> dict[str, Any]:
    # Imported here: a help page needs no torch.
    import torch

    from layercast import NUMERICS_VERSION, ops
    from layercast.study import provenance

    return {
        "schema_version": 1,
        "numerics_version": NUMERICS_VERSION,
        "isa": ops.isa(),
        "versions": provenance.versions(),
        "source": provenance.source_state(),
        "device": provenance.device(),
        "torch": {
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "flush_denormal": bool(torch.tensor(1e-40).mul(1.0).item() == 0.0),
            "cuda": torch.version.cuda,
            "cuda_devices": [
                torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
            ],
            "allow_tf32": bool(torch.backends.cuda.matmul.allow_tf32),
        },
        "settings": provenance.settings(),
    }


def _lines(facts: dict[str, Any], indent: str = "") -> list[str]:
    lines: list[str] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list):
            lines.append(f"{indent}{name}: {', '.join(map(str, value)) or 'none'}")
        else:
            lines.append(f"{indent}{name}: {value}")
    return lines
