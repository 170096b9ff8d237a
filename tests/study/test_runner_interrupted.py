"""Contract under test: a run killed at any moment resumes to the records of one that was not."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from study_process import (
    WIDEST,
    StudyProcess,
    all_answers,
    batch_files,
    kill,
    wait_for_batches,
    wait_until_gone,
    worker_pids,
)


@pytest.mark.parametrize("batches", [0, 1, 5, 15])
def test_runner_resumes_after_kill_with_no_answer_lost_or_doubled(
    stub_study: StudyProcess, uninterrupted: Path, tmp_path: Path, batches: int
) -> None:
    out = tmp_path / "killed"
    process = stub_study.start(out, STUB_STEP_SECONDS="0.004")
    wait_for_batches(out, batches, process)
    workers = worker_pids(process.pid)
    kill(process)
    assert wait_until_gone(workers)
    finished = batch_files(out)
    assert len(finished) >= batches

    status, result, stderr = stub_study.run(out)

    assert (status, result["complete"], stderr) == (0, True, "")
    assert result["kept"] == len(finished)
    after = batch_files(out)
    # Not one byte of a finished batch was written again, timings included.
    assert {name: after[name] for name in finished} == finished
    assert all_answers(out) == all_answers(uninterrupted)


def test_kill_in_the_middle_of_a_write_leaves_no_half_batch(
    stub_study: StudyProcess, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    process = stub_study.start(out, STUB_FAULT=f"kill-runner-in-write@bf16/{WIDEST}-t1#2")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    # The write it was killed in has left its temporary file, and no batch of that name.
    (partial,) = (out / "records" / "bf16").rglob("*.partial")
    assert not partial.with_name(partial.name[1:].split(".parquet")[0] + ".parquet").exists()

    status, result, stderr = stub_study.run(out)

    assert (status, result["complete"], stderr) == (0, True, "")
    assert not list(out.rglob("*.partial"))
    assert all_answers(out) == all_answers(uninterrupted)


def test_workers_die_with_a_killed_runner_and_write_no_more(
    stub_study: StudyProcess, tmp_path: Path
) -> None:
    out = tmp_path / "orphans"
    process = stub_study.start(out, STUB_STEP_SECONDS="0.01")
    wait_for_batches(out, 2, process)
    workers = worker_pids(process.pid)
    assert workers, "the runner has workers at this point"
    kill(process)
    assert wait_until_gone(workers)
    before = batch_files(out)
    time.sleep(0.5)
    assert batch_files(out) == before


def test_ctrl_c_ends_workers_and_leaves_no_partial_file(
    stub_study: StudyProcess, tmp_path: Path
) -> None:
    out = tmp_path / "interrupted"
    process = stub_study.start(out, STUB_STEP_SECONDS="0.01")
    wait_for_batches(out, 2, process)
    workers = worker_pids(process.pid)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert wait_until_gone(workers)
    assert not list(out.rglob("*.partial"))
    assert stub_study.run(out)[1]["complete"]


def test_two_runners_cannot_work_in_one_folder(stub_study: StudyProcess, tmp_path: Path) -> None:
    out = tmp_path / "shared"
    first = stub_study.start(out, STUB_STEP_SECONDS="0.1")
    wait_for_batches(out, 1, first)
    status, _, stderr = stub_study.run(out)
    assert status == 2
    assert f"a study at work there (process {first.pid})" in stderr
    kill(first)


def test_new_runner_waits_for_the_workers_of_a_killed_one(
    stub_study: StudyProcess, tmp_path: Path
) -> None:
    out = tmp_path / "hasty"
    first = stub_study.start(out, STUB_STEP_SECONDS="0.02")
    wait_for_batches(out, 1, first)
    first.send_signal(signal.SIGKILL)  # not waited for: its process id is still there
    status, result, stderr = stub_study.run(out)
    assert (status, result["complete"], stderr) == (0, True, "")
