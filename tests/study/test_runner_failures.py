"""Contract under test: what fails is told in a line, and costs a run nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from study_process import WIDEST, StudyProcess, all_answers, batch_files

from layercast.study import records


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", "ValueError: the stub was told to fail"),
        ("abort", "was ended by SIGABRT"),
        ("killed", "was ended by SIGKILL (the system may have run out of memory)"),
        ("exit", "ended with status 7"),
    ],
)
def test_crashed_worker_is_reported_others_finish_and_the_run_resumes(
    stub_study: StudyProcess, uninterrupted: Path, tmp_path: Path, fault: str, message: str
) -> None:
    out = tmp_path / "crashed"
    status, result, stderr = stub_study.run(out, STUB_FAULT=f"{fault}@bf16/{WIDEST}-t1#1")
    assert status == 1
    assert stderr == ""
    # The worker lost a configuration, was started again for its other one, and lost that too.
    configurations = [f"{WIDEST}-t1-b2", f"{WIDEST}-t1-b4"]
    assert [failure["config_id"] for failure in result["failures"]] == configurations
    for failure in result["failures"]:
        assert failure["worker"] == f"bf16/{WIDEST}-t1"
        assert message in failure["message"]
        assert "\n" not in failure["message"]
    # One batch of each was done; the other worker did all of its own.
    assert len(list((out / "records" / "bf16").rglob("*.parquet"))) == 2
    assert len(list((out / "records" / "layercast").rglob("*.parquet"))) == 8
    log = out / "logs" / f"bf16-{WIDEST}-t1.log"
    assert "libraries may print" in log.read_text()
    assert ("Traceback" in log.read_text()) == (fault == "raise")

    status, result, _ = stub_study.run(out)
    assert (status, result["complete"], result["kept"]) == (0, True, 10)
    assert not log.exists()
    assert all_answers(out) == all_answers(uninterrupted)


@pytest.mark.parametrize("fault", ["raise", "abort", "killed", "exit"])
def test_crashed_worker_is_started_again_and_loses_nothing(
    stub_study: StudyProcess, uninterrupted: Path, tmp_path: Path, fault: str
) -> None:
    out = tmp_path / "crashed"
    status, result, stderr = stub_study.run(
        out,
        STUB_FAULT=f"{fault}@bf16/{WIDEST}-t1#2",
        STUB_FAULT_ONCE=str(tmp_path / "once"),
        STUDY_RETRIES="1",
    )
    assert (status, result["failures"], stderr) == (0, [], "")
    assert all_answers(out) == all_answers(uninterrupted)
    (event,) = json.loads((out / "manifest.json").read_text())["events"]
    assert event["worker"] == f"bf16/{WIDEST}-t1"
    assert (event["config_id"], event["batch_index"]) == (f"{WIDEST}-t1-b2", 2)
    assert event["kind"] == ("failed" if fault == "raise" else "crashed")
    assert event["outcome"] == "retried"
    # What the crashed process said is still there to be read.
    assert "libraries may print" in (out / "logs" / f"bf16-{WIDEST}-t1.log").read_text()


def test_configuration_that_does_not_fit_into_memory_is_recorded_and_left_out(
    stub_study: StudyProcess, uninterrupted: Path, tmp_path: Path
) -> None:
    # The fifth batch of this worker is the last of batch size 2: it runs out of memory once.
    out = tmp_path / "memory"
    status, result, _ = stub_study.run(
        out,
        STUB_FAULT=f"memory@bf16/{WIDEST}-t1#4",
        STUB_FAULT_ONCE=str(tmp_path / "once"),
        STUDY_RETRIES="5",
    )
    assert (status, result["complete"]) == (1, False)
    (failure,) = result["failures"]
    assert failure["config_id"] == f"{WIDEST}-t1-b2"
    assert failure["message"] == "MemoryError: cannot allocate 80 GiB"
    (event,) = json.loads((out / "manifest.json").read_text())["events"]
    assert (event["kind"], event["outcome"]) == ("out_of_memory", "given up")
    # Everything else ran, the worker's other configuration too.
    missing = set(batch_files(uninterrupted)) - set(batch_files(out))
    assert missing == {f"records/bf16/{WIDEST}-t1-b2/batch-00004.parquet"}
    assert stub_study.run(out)[1]["complete"]
    assert all_answers(out) == all_answers(uninterrupted)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("disk-full", "No space left on device"), ("file-too-large", "File too large")],
)
def test_full_disk_is_one_clear_line_and_nothing_half_written(
    stub_study: StudyProcess, uninterrupted: Path, tmp_path: Path, fault: str, reason: str
) -> None:
    out = tmp_path / "full"
    status, result, stderr = stub_study.run(out, STUB_FAULT=f"{fault}@bf16/{WIDEST}-t1#3")
    assert (status, stderr) == (1, "")
    (failure,) = result["failures"]
    assert reason in failure["message"]
    assert "Free space" in failure["message"]
    assert "\n" not in failure["message"]
    assert not list(out.rglob("*.partial"))
    assert len(list((out / "records" / "bf16").rglob("*.parquet"))) == 3

    assert stub_study.run(out)[1]["complete"]
    assert all_answers(out) == all_answers(uninterrupted)


def test_damaged_batch_is_named_with_the_remedy(
    stub_study: StudyProcess, uninterrupted: Path
) -> None:
    path = records.batch_path(uninterrupted, "bf16", f"{WIDEST}-t1-b2", 3)
    path.write_bytes(path.read_bytes()[:100])
    status, _, stderr = stub_study.run(uninterrupted)
    assert status == 2
    assert path.name in stderr
    assert "Delete it and start the run again" in stderr
    path.unlink()
    assert stub_study.run(uninterrupted)[1]["computed"] == 1
