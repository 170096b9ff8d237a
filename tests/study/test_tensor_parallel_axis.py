"""Contract under test: ranks of one model answer as one process does, and die as one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from study_process import (
    STUB_BATCHES,
    WIDEST,
    StudyProcess,
    all_answers,
    batch_files,
    kill,
    wait_for_batches,
    wait_until_gone,
    worker_pids,
)
from tiny_checkpoint import save_tiny_checkpoint

from layercast.study import records


def plan(folder: Path, ranks: list[int]) -> dict[str, object]:
    return {
        "model": str(save_tiny_checkpoint(folder)),
        "task": "bundled",
        "problems": 2,
        "precisions": ["bf16", "layercast"],
        "axes": {
            "instruction_sets": [WIDEST],
            "threads": [1],
            "batch_sizes": [2],
            "tensor_parallel": ranks,
        },
        "decoding": {"max_new_tokens": 12, "top_k": 3},
    }


def test_layercast_answers_are_bitwise_equal_on_two_ranks_and_stock_ones_are_not(
    tmp_path: Path,
) -> None:
    study = StudyProcess(plan(tmp_path / "model", [1, 2]), engine="transformers")
    status, result, stderr = study.run(tmp_path / "run")
    assert (status, result["failures"]) == (0, []), stderr
    digests = {
        (precision, ranks): records.read_answers(
            tmp_path / "run", precision=precision, config_id=f"{WIDEST}-t1-b2{ranks}"
        )["logprob_digests"].to_pylist()
        for precision in ("bf16", "layercast")
        for ranks in ("", "-tp2")
    }
    assert digests["layercast", ""] == digests["layercast", "-tp2"]
    # The control: two ranks do sum in another order.
    assert digests["bf16", ""] != digests["bf16", "-tp2"]
    workers = json.loads((tmp_path / "run" / "manifest.json").read_text())["workers"]
    assert workers[f"layercast/{WIDEST}-t1-tp2"]["facts"]["ranks"] == 2
    assert workers[f"layercast/{WIDEST}-t1"]["facts"]["ranks"] == 1
    assert len(all_answers(tmp_path / "run")["bf16"]) == 4


def test_ranks_that_cannot_share_a_model_are_given_up_with_the_reason(tmp_path: Path) -> None:
    study = StudyProcess(plan(tmp_path / "model", [8]), engine="transformers")
    study.plan["precisions"] = ["layercast"]
    status, result, _ = study.run(tmp_path / "run")
    assert status == 1
    (failure,) = result["failures"]
    assert "must deal out heads and features evenly, got 8 processes" in failure["message"]


@pytest.fixture
def two_ranks(stub_study: StudyProcess) -> StudyProcess:
    """Return the small study without torch, on two ranks, which do not talk to each other."""
    stub_study.plan["axes"]["tensor_parallel"] = [2]
    return stub_study


def test_every_rank_dies_with_a_killed_runner(two_ranks: StudyProcess, tmp_path: Path) -> None:
    process = two_ranks.start(tmp_path / "run", STUB_STEP_SECONDS="0.05")
    wait_for_batches(tmp_path / "run", 2, process)
    workers = worker_pids(process.pid)
    followers = [pid for worker in workers for pid in worker_pids(worker)]
    assert followers
    kill(process)
    assert wait_until_gone([*workers, *followers])


def test_rank_that_dies_ends_its_worker_which_is_started_again(
    two_ranks: StudyProcess, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = two_ranks.start(out, STUB_STEP_SECONDS="0.2", STUDY_RETRIES="1")
    wait_for_batches(out, 1, process)
    (first, *_) = [pid for worker in worker_pids(process.pid) for pid in worker_pids(worker)]
    os.kill(first, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=120)
    assert (json.loads(stdout)["complete"], stderr) == (True, "")
    (event,) = json.loads((out / "manifest.json").read_text())["events"]
    assert (event["kind"], event["outcome"]) == ("crashed", "retried")
    assert len(batch_files(out)) == STUB_BATCHES
