"""Contract under test: each figure of the README is its record's."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from layercast.testbed import path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
RECORD = json.loads((ROOT / "docs" / "records" / "bundled-study.json").read_text())
TABLE = README.split("```text\n")[1].split("```")[0]
PRECISIONS = ("bf16", "fp16", "fp32", "layercast")


def _row(name: str) -> list[str]:
    (line,) = re.findall(rf"^\s*{re.escape(name)}\s+(.+)$", TABLE, re.MULTILINE)
    return re.split(r"\s{2,}", line.strip())


@pytest.mark.parametrize(
    ("row", "figure", "digits"),
    [
        ("accuracy", "accuracy", 1),
        ("Std@Acc", "std_at_acc", 2),
        ("Avg_Std@Output_Length", "avg_std_output_length", 2),
        ("Div_Percent", "div_percent", 1),
    ],
)
def test_table_shows_the_recorded_figures(row, figure, digits):
    recorded = [RECORD["precisions"][p][figure]["value"] for p in PRECISIONS]
    assert _row(row) == [f"{value:.{digits}f}" for value in recorded]
    # The control: another record would not pass.
    assert _row(row) != [f"{value + 1:.{digits}f}" for value in recorded]


def test_equality_of_bits_is_the_recorded_one():
    recorded = [RECORD["precisions"][p]["bits_equal"] for p in PRECISIONS]
    assert _row("every bit equal") == ["yes" if equal else "no" for equal in recorded]
    compared = RECORD["precisions"]["layercast"]["logprobs_compared"]
    assert f"every bit of {compared:,} log-probabilities" in TABLE


def test_figures_of_the_bundled_model_are_those_of_its_evaluation():
    figures = json.loads((path() / "evaluation.json").read_text())
    for value in (
        f"{figures['problems']} held-out",
        f"accuracy {figures['fp32']['accuracy_percent']} %",
        f"answers of {figures['fp32']['mean_answer_tokens']:.0f}",
        f"{figures['bf16']['diverging_batch_8_to_32_percent']} % of the bf16",
        f"{figures['fp32']['diverging_batch_8_to_32_percent']} % of the FP32",
    ):
        assert value in " ".join(README.split()), value


def test_memory_is_the_recorded_one_and_within_its_goal():
    (entry,) = json.loads((ROOT / "docs" / "records" / "model-memory.json").read_text())[
        "measurements"
    ]
    more, peak = (
        entry["facts"][name] for name in ("anonymous_over_stock_bf16", "peak_over_stock_fp32")
    )
    for page in (README, GUARANTEES):
        text = " ".join(page.split())
        assert f"{entry['sizes']['tokens']} tokens decoded, takes {100 * more:.2f} % of" in text
        assert f"is {peak:.2f} of stock FP32's" in text
    goals = tomllib.loads((ROOT / "benchmarks" / "goals.toml").read_text())
    bounds = goals["memory"]["1 B model"]["1"]
    assert more <= bounds["anonymous_over_stock_bf16"]
    assert peak <= bounds["peak_over_stock_fp32"]


def test_observed_divergence_on_the_pages_is_the_recorded_one():
    bf16, fp16 = (RECORD["precisions"][p]["div_percent"]["value"] for p in ("bf16", "fp16"))
    tutorial, statistics = (
        " ".join((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8").split())
        for name in ("tutorial", "statistics")
    )
    problems = RECORD["problems"]
    assert f"bf16 moves {bf16 * problems / 100:.0f} of {problems} answers" in tutorial
    assert f"{bf16:.0f} % observed; fp16 21 % and {fp16:.0f} %" in statistics
