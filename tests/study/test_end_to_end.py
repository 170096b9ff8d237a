"""Contract under test: the study of a real model, killed in the middle, is the study unkilled."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from study_process import StudyProcess, all_answers, batch_files
from tiny_checkpoint import save_tiny_checkpoint

from layercast import testbed
from layercast.study.instruction_sets import available
from layercast.study.lock import lock_folder
from layercast.study.manifest import read_manifest
from layercast.study.summary import StudySummary, summarise
from layercast.study.vocabulary import read_vocabulary


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudyProcess]:
    plan = {
        "model": str(save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))),
        "task": "bundled",
        "problems": 2,
        "precisions": ["bf16", "layercast"],
        "axes": {
            "instruction_sets": available()[-1:],
            "threads": [1],
            "batch_sizes": [1, 2],
        },
        "decoding": {"max_new_tokens": 32, "top_k": 3},
    }
    study = StudyProcess(plan, engine="transformers")
    yield study
    for process in study.processes:
        if process.poll() is None:
            process.kill()


@pytest.fixture(scope="module")
def run(study: StudyProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    status, result, stderr = study.run(out)
    assert (status, result["failures"]) == (0, []), stderr
    return out


@pytest.fixture(scope="module")
def summary(run: Path) -> StudySummary:
    return summarise([run])


def test_real_run_killed_in_the_middle_resumes_to_the_same_records(
    study: StudyProcess, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    process = replace(study, engine="killing").start(out)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    with lock_folder(out):  # free once every worker is gone
        finished = batch_files(out)
    # The worker that killed it had finished two of its three batches; the other, beside it or not
    # started yet, at most two too.
    assert 2 <= len(finished) <= 4

    status, result, _ = study.run(out)

    assert (status, result["complete"], result["kept"]) == (0, True, len(finished))
    assert {name: batch_files(out)[name] for name in finished} == finished
    assert all_answers(out) == all_answers(run)


def test_real_records_hold_what_the_model_generated(run: Path) -> None:
    problems = {problem.id: problem for problem in testbed.problems("test", 2)}
    pieces = read_vocabulary(run)
    for table in all_answers(run).values():
        for row in table.to_pylist():
            tokens, k = row["token_ids"], row["top_k"]
            top_ids = np.array(row["top_ids"]).reshape(len(tokens), k)
            top_logprobs = np.array(row["top_logprobs"]).reshape(len(tokens), k)
            assert row["output_length"] == len(tokens) == len(row["logprob_digests"])
            # Greedy: each token is the best candidate, and its log-probability the best one.
            assert top_ids[:, 0].tolist() == tokens
            assert top_logprobs[:, 0].tolist() == row["logprobs"]
            assert (np.diff(top_logprobs, axis=1) <= 0).all()
            assert (np.exp(top_logprobs.astype(np.float64)).sum(axis=1) <= 1 + 1e-6).all()
            assert row["finish_reason"] == ("stop" if tokens[-1] == 0 else "length")
            problem = problems[row["problem_id"]]
            assert row["expected"] == problem.answer
            assert row["correct"] == testbed.grade(row["text"], problem.answer)
            text = b"".join(pieces[token] for token in tokens if token != 0)
            assert row["text"] == text.decode("utf-8", "replace")


def test_real_layercast_answers_are_bitwise_equal_at_every_batch_size(
    summary: StudySummary,
) -> None:
    by_name = {precision.precision: precision for precision in summary.precisions}
    assert by_name["layercast"].bits_equal is True
    assert by_name["layercast"].bit_div_percent.value == 0.0
    assert by_name["layercast"].logprobs_compared == 257 * by_name["layercast"].positions_compared
    # The control: stock bf16 arithmetic does depend on the batch size, and the study sees it.
    assert by_name["bf16"].bits_equal is False


def test_real_manifest_tells_the_state_of_each_worker(run: Path) -> None:
    widest = available()[-1]
    workers = read_manifest(run).workers
    ours, stock = workers[f"layercast/{widest}-t1"].facts, workers[f"bf16/{widest}-t1"].facts
    assert (ours["arithmetic"], ours["guarantee"]) == ("layercast", "bitwise")
    assert (stock["arithmetic"], stock["guarantee"]) == ("stock", "none")
    assert ours["layercast_isa"] == widest
    assert stock["torch_threads"] == 1
    assert stock["allow_tf32"] is False
    assert stock["attention"] == "sdpa"
