"""Contract under test: the summary is the metrics of the records, worked by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handwritten_records import PROBLEMS, answer, only, write
from rich.console import Console

from layercast.study import metrics, records
from layercast.study.bootstrap import Estimate
from layercast.study.report.matrix import read_matrix
from layercast.study.summary import summarise
from layercast.study.table import print_table


def test_summary_by_hand(blank_run: Path) -> None:
    quarter = [math.log(0.25), math.log(0.125)]
    half = [math.log(0.5), math.log(0.25)]
    write(
        blank_run,
        # Problem a parts at token 1; there the top probability is 1/2 and 1/4.
        answer("avx2-t1-b8", "a", [5, 6, 7], digests=[1, 2, 3], top=[half, half, half]),
        answer("avx2-t1-b16", "a", [5, 9], digests=[1, 4], top=[half, quarter], correct=False),
        # Problem b is the same to the bit.
        answer("avx2-t1-b8", "b", [5, 6]),
        answer("avx2-t1-b16", "b", [5, 6]),
    )
    result = only(blank_run)
    assert [c.configuration.id for c in result.configurations] == ["avx2-t1-b8", "avx2-t1-b16"]
    # b8: 2 of 2 right; b16: 1 of 2. Mean 75; deviations 25, squares 1250, over 1.
    assert [c.accuracy for c in result.configurations] == [100.0, 50.0]
    assert result.accuracy.value == 75.0
    assert result.std_at_acc.value == pytest.approx(math.sqrt(1250), rel=1e-12)
    assert result.div_percent.value == 50.0
    assert result.div_index.value == 1.0
    # Lengths of a: 3 and 2: sqrt(0.5). Of b: 0. Mean: half of it.
    assert result.avg_std_output_length.value == pytest.approx(math.sqrt(0.5) / 2, rel=1e-12)
    # a: 0 at position 0; 1/2 and 1/4 at position 1: deviations 1/8, squares 1/32, root. Mean of
    # the two positions, then with b's 0: a quarter of it. Recorded in float32: 2^-24 relative.
    expected = math.sqrt(1 / 32) / 4
    assert result.avg_std_top1_prob.value == pytest.approx(expected, rel=1e-6)
    # The margin is ln 2 under both.
    assert result.margin.value == pytest.approx(math.log(2), rel=1e-6)
    assert result.bit_div_percent.value == 50.0
    assert result.bits_equal is False
    # Shared positions: 0 and 1 of a, both of b; the stub's vocabulary has 97 tokens.
    assert result.positions_compared == 4
    assert result.logprobs_compared == 4 * 97
    a, b = result.problems
    assert (a.divergence_index, a.first_bit_divergence, a.distinct_responses) == (1, 1, 2)
    assert (b.divergence_index, b.first_bit_divergence, b.distinct_responses) == (None, None, 1)
    assert (a.accuracy, b.accuracy) == (50.0, 100.0)
    assert b.margin is None


def test_equal_tokens_with_other_bits_are_not_bitwise_equal(blank_run: Path) -> None:
    write(
        blank_run,
        *(answer("avx2-t1-b8", name, [5, 6], digests=[1, 2]) for name in PROBLEMS),
        answer("avx2-t1-b16", "a", [5, 6], digests=[1, 2]),
        answer("avx2-t1-b16", "b", [5, 6], digests=[1, 3]),
    )
    result = only(blank_run)
    assert result.div_percent.value == 0.0
    assert result.div_index.value == metrics.NO_DIVERGENCE
    assert result.bit_div_percent.value == 50.0
    assert result.bits_equal is False


def test_identical_answers_are_bitwise_equal(blank_run: Path) -> None:
    for config in ("avx2-t1-b8", "avx2-t1-b16"):
        write(blank_run, *(answer(config, name, [5, 6]) for name in PROBLEMS))
    result = only(blank_run)
    assert result.bits_equal is True
    assert result.div_percent == Estimate(0.0, 0.0, 0.0)
    assert result.std_at_acc.value == 0.0


def test_summary_of_a_run_agrees_with_the_metrics_on_its_records(finished_run: Path) -> None:
    for precision in summarise([finished_run]).precisions:
        table = records.read_answers(finished_run, precision=precision.precision).to_pylist()
        configs = sorted({row["config_id"] for row in table})
        names = sorted({row["problem_id"] for row in table})
        cells = {(row["problem_id"], row["config_id"]): row for row in table}
        grid = [[cells[name, config] for config in configs] for name in names]
        responses = [[cell["token_ids"] for cell in row] for row in grid]
        tops = [
            [np.exp(np.float64(cell["top_logprobs"][:: cell["top_k"]])) for cell in row]
            for row in grid
        ]
        lengths = [[cell["output_length"] for cell in row] for row in grid]
        grades = np.array([[cell["correct"] for cell in row] for row in grid])
        expected = {
            "std_at_acc": metrics.std_at_acc(100 * grades.mean(axis=0)),
            "div_percent": metrics.div_percent(responses),
            "div_index": metrics.mean_divergence_index(responses),
            "avg_std_output_length": metrics.avg_std_output_length(lengths),
            "avg_std_top1_prob": metrics.avg_std_top1_prob(tops, responses),
        }
        for name, value in expected.items():
            assert getattr(precision, name).value == pytest.approx(value, rel=1e-12), name


def test_report_opens_each_batch_file_once_for_the_matrix(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    read = records.pq.ParquetFile

    def counted(path: Path) -> Any:
        opened.append(path)
        return read(path)

    monkeypatch.setattr(records.pq, "ParquetFile", counted)
    summary = summarise([finished_run])
    opened.clear()
    read_matrix(summary)
    batches = [path for path in opened if path.name.startswith("batch-")]
    assert sorted(batches) == sorted((finished_run / "records").rglob("*.parquet"))


def test_table_says_what_the_summary_says(finished_run: Path) -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    summary = summarise([finished_run])
    print_table(summary, console)
    text = console.export_text()
    bf16, layercast = summary.precisions
    assert "10 problems × 2 configurations" in text
    assert (
        f"layercast: every bit of {layercast.logprobs_compared:,} log-probabilities "
        f"({layercast.positions_compared:,} positions) is equal in all 2 configurations."
    ) in " ".join(text.split())
    assert "bf16: every bit" not in text
    assert f"{bf16.div_percent.value:.1f}" in text
    assert "-1 (none)" in text
    assert max(map(len, text.split("layercast: every")[0].splitlines())) <= 80
    assert "…" not in text
