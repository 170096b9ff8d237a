"""Contract under test: the README's table is the one its record gives; memory is within its goal.

Single figures name their records where they stand: see test_figures.py.
"""

from __future__ import annotations

import copy
import io
import json
import tomllib
from types import SimpleNamespace
from typing import Any

import pytest
from pages import README, ROOT, text_of
from rich.console import Console

from layercast.study.bootstrap import Estimate
from layercast.study.table import print_table

RECORD = json.loads(text_of(ROOT / "docs" / "records" / "bundled-study.json"))
TABLE = text_of(README).split("```text\n")[1].split("```")[0]


def _precision(name: str, figures: dict[str, Any]) -> SimpleNamespace:
    estimates = {k: Estimate(**v) for k, v in figures.items() if isinstance(v, dict) and "low" in v}
    compared, planned = figures["configurations_compared"], figures["configurations_planned"]
    assert compared == planned
    return SimpleNamespace(
        **figures | estimates,
        precision=name,
        compared=compared,
        compared_by="rows",
        extent=f"all {planned} configurations",
    )


def _table(record: dict[str, Any]) -> str:
    """Return what `layercast study run` prints of a study with these figures."""
    summary: Any = SimpleNamespace(
        problem_ids=range(record["problems"]),
        precisions=[_precision(name, p) for name, p in record["precisions"].items()],
        notes=record["notes"],
    )
    console = Console(file=io.StringIO(), width=80)
    print_table(summary, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def _lines(table: str) -> list[str]:
    return [line.rstrip() for line in table.strip("\n").splitlines()]


def test_table_is_the_one_of_the_record():
    assert _lines(TABLE) == _lines(_table(RECORD))


@pytest.mark.parametrize("figure", ["accuracy", "std_at_acc", "div_index", "div_percent"])
@pytest.mark.parametrize("end", ["value", "low", "high"])
def test_table_of_another_record_is_another(figure, end):
    record = copy.deepcopy(RECORD)
    record["precisions"]["bf16"][figure][end] += 1
    assert _lines(TABLE) != _lines(_table(record))


def test_configurations_are_those_the_readme_says():
    labels = {f"{i}-t{t}-b{b}" for i in ("avx2", "avx512") for t in (1, 2) for b in (8, 16, 32)}
    text = " ".join(text_of(README).split())
    assert "AVX2 and AVX-512 x 1 and 2 threads x batch 8, 16, 32" in text
    assert {label for p in RECORD["precisions"].values() for label in p["accuracies"]} == labels


def test_memory_is_within_its_goal():
    record = json.loads(text_of(ROOT / "docs" / "records" / "model-memory.json"))
    (entry,) = record["measurements"]
    goals = tomllib.loads(text_of(ROOT / "benchmarks" / "goals.toml"))
    for name, bound in goals["memory"]["1 B model"]["1"].items():
        assert entry["facts"][name] <= bound
