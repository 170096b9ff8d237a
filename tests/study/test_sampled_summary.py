"""Contract under test: of sampled answers Pass@1 and its spread; samples are held to each other.

Two problems, two samples each, two configurations, worked by hand.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from handwritten_records import edit_plan, write

from layercast.errors import RecordError
from layercast.study import records
from layercast.study.report import write_report
from layercast.study.study_size import study_size
from layercast.study.summary import summarise
from layercast.study.vocabulary import write_vocabulary

B8, B16 = "avx2-t1-b8", "avx2-t1-b16"


def answer(config: str, problem: str, sample: int, tokens: list[int], right: bool) -> dict:
    n = len(tokens)
    return {
        "problem_id": problem,
        "precision": "bf16",
        "config_id": config,
        "prompt_digest": f"digest of {problem}",
        "token_ids": tokens,
        "logprobs": [math.log(0.5)] * n,
        "top_ids": [t for token in tokens for t in (token, 0)],
        "top_logprobs": [math.log(0.5), math.log(0.25)] * n,
        "top_k": 2,
        "logprob_digests": [1] * n,
        "answer": str(right),
        "correct": right,
        "finish_reason": "stop",
        "output_length": n,
        "sample_index": sample,
        "seed": 0,
    }


@pytest.fixture
def folder(blank_run: Path) -> Path:
    decoding = {"method": "sampling", "samples": 2, "max_new_tokens": 6, "top_k": 2}
    edit_plan(blank_run, decoding=decoding)
    write_vocabulary(blank_run, [b"x"] * 10)
    rows = [
        answer(B8, "a", 0, [5, 6], True),
        answer(B8, "a", 1, [5, 7, 8], False),
        answer(B8, "b", 0, [4], True),
        answer(B8, "b", 1, [4, 4], True),
        # Sample 0 of a is the same, sample 1 parts at 1; those of b are the same.
        answer(B16, "a", 0, [5, 6], False),
        answer(B16, "a", 1, [5, 9, 8], False),
        answer(B16, "b", 1, [4, 4], True),
        answer(B16, "b", 0, [4], True),
    ]
    write(blank_run, *rows)
    return blank_run


def test_pass_at_1_and_its_spread_by_hand(folder):
    (found,) = summarise([folder]).precisions
    # b8: (1/2 + 1) / 2; b16: (0 + 1) / 2. Mean 62.5; deviations 12.5: squares 312.5, over 1.
    assert [c.accuracy for c in found.configurations] == [75.0, 50.0]
    assert found.accuracy.value == 62.5
    assert found.std_at_acc.value == pytest.approx(math.sqrt(312.5))
    assert found.samples == 2


def test_samples_are_held_to_the_same_sample_elsewhere(folder):
    (found,) = summarise([folder]).precisions
    by_question = {(p.problem_id, p.sample): p.divergence_index for p in found.problems}
    # Held to sample 1, sample 0 of a would part at 1 and that of b at 1.
    assert by_question == {("a", 0): None, ("a", 1): 1, ("b", 0): None, ("b", 1): None}
    # Half of the samples of a, none of b: mean of 1/2 and 0.
    assert found.div_percent.value == 25.0
    # One axis moves what moves, and sampling is not predicted from margins.
    assert found.variance["answers"].axes[0].axis == "batch size"
    assert found.prediction is None


def test_samples_needed_are_planned_from_all_samples_of_a_problem(folder):
    (found,) = summarise([folder]).precisions
    # Of a's four samples one is right: variance 1/4 * 3/4 * 4/3 = 1/4; of b's none varies. Mean
    # 1/8 over 2 problems: 10^4 / 16 * 1.96^2 = 2400.9.
    assert study_size(found).samples == 2401


def test_report_of_samples_names_them(folder, tmp_path):
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert "a, sample 2" in page
    assert "2 samples a problem" in page
    assert "1 of 4 samples differently" in page
    assert "drew its tokens from one generator a batch" in page
    assert "Samples a problem" in page


def test_sample_beyond_the_plan_is_refused(folder):
    path = records.batch_path(folder, "bf16", B8, 1)
    records.write_batch(path, [answer(B8, "a", 2, [5], True)])
    with pytest.raises(RecordError, match="one answer to each"):
        summarise([folder])
