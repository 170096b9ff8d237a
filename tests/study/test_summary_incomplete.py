"""Contract under test: what a run has not finished is left out of its figures, and said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from handwritten_records import PROBLEMS, answer, edit_plan, only, plan_configurations, write
from rich.console import Console

from layercast.errors import RecordError
from layercast.study.bootstrap import Estimate
from layercast.study.summary import summarise
from layercast.study.table import print_table


def test_single_configuration_claims_nothing(blank_run: Path) -> None:
    write(blank_run, *(answer("avx2-t1-b8", name, [5]) for name in PROBLEMS))
    result = only(blank_run)
    assert result.accuracy.value == 100.0
    assert result.bits_equal is None
    for estimate in (result.std_at_acc, result.div_percent, result.div_index, result.margin):
        assert math.isnan(estimate.value)
    notes = summarise([blank_run]).notes
    assert "Unfinished: bf16 has 1 of 2 configurations." in notes


def test_incomplete_configuration_is_left_out_of_every_figure(blank_run: Path) -> None:
    plan_configurations(blank_run, "avx2-t1-b8", "avx2-t1-b16", "avx2-t1-b32")
    for config in ("avx2-t1-b8", "avx2-t1-b16"):
        write(
            blank_run,
            answer(config, "a", [5, 6], correct=True),
            answer(config, "b", [5, 6], correct=False),
        )
    # Over the problem it answered, b32 would be 100 % right, and the spread 29 points.
    write(blank_run, answer("avx2-t1-b32", "a", [5, 6], correct=True))
    result = only(blank_run)
    assert [c.accuracy for c in result.configurations] == [50.0, 50.0, None]
    assert [c.answers for c in result.configurations] == [2, 2, 1]
    assert result.accuracy.value == 50.0
    assert result.std_at_acc == Estimate(0.0, 0.0, 0.0)
    assert (result.planned, result.compared, result.answers_missing) == (3, 2, 1)
    assert [problem.answers for problem in result.problems] == [2, 2]
    assert result.bits_equal is True
    assert result.extent == "the 2 configurations compared, of 3 planned"
    (note,) = summarise([blank_run]).notes
    assert note.startswith("Unfinished: bf16 lacks 1 answer of avx2-t1-b32.")
    assert "left out of every figure" in note


def test_table_claims_only_what_was_compared_in_all(blank_run: Path) -> None:
    plan_configurations(blank_run, "avx2-t1-b8", "avx2-t1-b16", "avx2-t1-b32")
    for config in ("avx2-t1-b8", "avx2-t1-b16"):
        write(blank_run, *(answer(config, name, [5, 6]) for name in PROBLEMS))
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_table(summarise([blank_run]), console)
    text = " ".join(console.export_text().split())
    assert "is equal in the 2 configurations compared, of 3 planned." in text
    assert "in all" not in text


@pytest.mark.parametrize(
    "differing", [{"tokens": [5, 7]}, {"tokens": [5, 6], "digests": [1, 2]}], ids=["token", "bit"]
)
def test_difference_of_an_incomplete_configuration_still_counts_against_equal_bits(
    blank_run: Path, differing: dict[str, Any]
) -> None:
    plan_configurations(blank_run, "avx2-t1-b8", "avx2-t1-b16", "avx2-t1-b32")
    for config in ("avx2-t1-b8", "avx2-t1-b16"):
        write(blank_run, *(answer(config, name, [5, 6]) for name in PROBLEMS))
    write(blank_run, answer("avx2-t1-b32", "a", **differing))
    result = only(blank_run)
    assert result.bits_equal is False
    assert result.div_percent.value == 0.0


def test_killed_run_with_empty_folders_is_summarised_as_unfinished(blank_run: Path) -> None:
    write(blank_run, *(answer("avx2-t1-b8", name, [5, 6]) for name in PROBLEMS))
    (blank_run / "records" / "bf16" / "avx2-t1-b16").mkdir()
    (blank_run / "records" / "layercast" / "avx2-t1-b8").mkdir(parents=True)
    edit_plan(blank_run, precisions=["bf16", "layercast"])
    summary = summarise([blank_run])
    assert [precision.precision for precision in summary.precisions] == ["bf16"]
    assert "Unfinished: bf16 has 1 of 2 configurations." in summary.notes
    assert "Unfinished: layercast has 0 of 2 configurations." in summary.notes


def test_run_with_no_complete_configuration_has_no_figures(blank_run: Path) -> None:
    for config in ("avx2-t1-b8", "avx2-t1-b16"):
        write(blank_run, answer(config, "a", [5, 6]))
    result = only(blank_run)
    assert (result.compared, result.bits_equal) == (0, None)
    for estimate in (result.accuracy, result.std_at_acc, result.div_percent, result.div_index):
        assert math.isnan(estimate.value)


def test_no_records_yet_is_one_line(blank_run: Path) -> None:
    with pytest.raises(RecordError, match="got none yet"):
        summarise([blank_run])
