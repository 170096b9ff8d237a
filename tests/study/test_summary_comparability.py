"""Contract under test: runs are summarised together only if they differ by numerics alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from handwritten_records import PROBLEMS, answer, edit_manifest, write

from layercast.errors import RecordError
from layercast.study import records
from layercast.study.summary import summarise


def test_records_with_two_prompts_for_a_problem_are_refused(blank_run: Path) -> None:
    for config in ("avx2-t1-b8", "avx2-t1-b16"):
        write(blank_run, *(answer(config, name, [5], prompt_digest=config) for name in PROBLEMS))
    with pytest.raises(RecordError, match="This is not numerics"):
        summarise([blank_run])


def test_runs_with_other_prompts_are_refused(finished_run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(finished_run, tmp_path / "other"))
    path = other / "problems.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[3]["prompt_digest"] = "changed"
    records.write_problems(other, rows)
    with pytest.raises(RecordError, match="another one for p003") as caught:
        summarise([finished_run, other])
    assert "not numerics" in str(caught.value)


def test_answers_of_another_run_or_doubled_are_refused(blank_run: Path) -> None:
    write(blank_run, answer("avx2-t1-b8", "a", [5]), answer("avx2-t1-b8", "a", [5]))
    with pytest.raises(RecordError, match="got one twice"):
        summarise([blank_run])
    write(blank_run, answer("avx2-t1-b8", "a", [5], problem_id="z"))
    with pytest.raises(RecordError, match="an answer to z"):
        summarise([blank_run])


def test_two_runs_are_more_configurations(finished_run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(finished_run, tmp_path / "other"))
    one, both = summarise([finished_run]), summarise([finished_run, other])
    assert len(both.precisions[0].configurations) == 2 * len(one.precisions[0].configurations)
    assert {c.run for c in both.precisions[0].configurations} == {"run", "other"}
    # The same answers again: as many problems diverge.
    assert both.precisions[0].div_percent.value == one.precisions[0].div_percent.value


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda tree: tree["resolved"]["plan"]["decoding"].update(max_new_tokens=7),
            "the same decoding, got another max_new_tokens (7, not 6)",
        ),
        (
            lambda tree: tree["resolved"]["plan"].update(task="another"),
            "the same task, got another one (another, not bundled)",
        ),
        (
            lambda tree: tree.update(problems_digest="0" * 64),
            "the same problems, got other ones",
        ),
        (
            lambda tree: tree["model_files"]["config.json"].update(sha256="0" * 64),
            "the same model files, got another config.json",
        ),
        (
            lambda tree: tree.update(numerics_version=99),
            "the same numerics_version, got another one (99, not 1)",
        ),
        (
            lambda tree: tree["resolved"]["plan"]["task_options"].update(grader="exact"),
            "the same task options, got another grader (exact, not None)",
        ),
        (
            lambda tree: (
                tree["resolved"]["plan"].update(task="another"),
                tree["model_files"]["config.json"].update(sha256="0" * 64),
            ),
            "the same task and model files, got another one (another, not bundled) and another "
            "config.json in",
        ),
    ],
    ids=["decoding", "task", "problems", "weights", "contract", "grader", "two at once"],
)
def test_runs_that_differ_by_more_than_numerics_are_refused(
    finished_run: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    other = Path(shutil.copytree(finished_run, tmp_path / "other"))
    edit_manifest(other, change)
    with pytest.raises(RecordError, match="This is not numerics") as caught:
        summarise([finished_run, other])
    assert said in str(caught.value)


def test_device_is_an_axis_of_runs_on_two_machines(finished_run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(finished_run, tmp_path / "other"))
    edit_manifest(other, lambda tree: tree["device"].update(cpu_model="Another CPU"))
    # In the other run one configuration answers a problem of bf16 otherwise.
    path = sorted((other / "records" / "bf16").rglob("*.parquet"))[0]
    rows = pq.ParquetFile(path).read().to_pylist()
    for file in sorted((other / "records" / "bf16").rglob("batch-*.parquet")):
        table = pq.ParquetFile(file).read().to_pylist()
        for row in table:
            if row["problem_id"] == rows[0]["problem_id"]:
                row.update(token_ids=[1], output_length=1, logprob_digests=[1], logprobs=[-1.0])
                row.update(top_ids=[1, 2], top_logprobs=[-1.0, -2.0], top_k=2)
        records.write_batch(file, table)
    axes = {
        share.axis: share
        for share in summarise([finished_run, other]).precisions[0].variance["answers"].axes
    }
    assert "device" in axes
    assert "run" not in axes
    assert axes["device"].alone.value > 0
    # Two runs on one machine: the run is the axis.
    edit_manifest(
        other,
        lambda tree: tree["device"].update(
            cpu_model=json.loads((finished_run / "manifest.json").read_text())["device"][
                "cpu_model"
            ]
        ),
    )
    again = summarise([finished_run, other]).precisions[0].variance["answers"].axes
    assert "run" in {share.axis for share in again}


def test_other_versions_are_compared_and_named(finished_run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(finished_run, tmp_path / "other"))
    edit_manifest(other, lambda tree: tree["versions"].update(torch="1.0"))
    (note,) = summarise([finished_run, other]).notes
    assert note.startswith("Versions of torch differ: ")
    assert ", 1.0 in other." in note
