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
    from layercast.study.manifest import environment

    facts = environment()
    if as_json:
        typer.echo(json.dumps(facts, indent=2, sort_keys=True))
        return
    for line in _lines(facts):
        typer.echo(line)


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
