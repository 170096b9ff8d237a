"""Contract under test: an answer in vLLM depends on its own request alone.

Every test compares tokens and the bits of all log-probabilities told with those of the same
requests served one by one. Half of the requests are greedy, half are drawn with a seed.
"""

from __future__ import annotations

import pytest
from engines import LAYERCAST, STOCK, Engine, greedy, outcomes, sampled

pytestmark = pytest.mark.vllm


def _engine(bundled, **options):
    return Engine(bundled, {**LAYERCAST, **options})


def test_answers_do_not_depend_on_concurrency_or_order_of_arrival(
    bundled, requests, alone, tmp_path
):
    fours = [requests[i : i + 4] for i in range(0, 16, 4)]
    result = _engine(bundled, enable_prefix_caching=False).run(
        tmp_path, *fours, requests, requests[::-1]
    )
    *by_four, together, backwards = result["rounds"]
    assert outcomes([answer for four in by_four for answer in four]) == outcomes(alone)
    assert outcomes(together) == outcomes(alone)
    assert outcomes(backwards[::-1]) == outcomes(alone)


@pytest.mark.parametrize(("chunk", "seqs"), [(16, 4), (48, 16), (4096, 3)])
def test_answers_do_not_depend_on_chunks_or_limits(bundled, requests, alone, tmp_path, chunk, seqs):
    engine = _engine(bundled, max_num_batched_tokens=chunk, max_num_seqs=seqs)
    (together,) = engine.run(tmp_path, requests)["rounds"]
    assert outcomes(together) == outcomes(alone)


def test_answers_do_not_depend_on_the_prefix_cache(bundled, requests, alone, tmp_path):
    engine = _engine(bundled, enable_prefix_caching=True, block_size=32)
    result = engine.run(tmp_path, requests, requests)
    cold, warm = result["rounds"]
    assert outcomes(cold) == outcomes(alone)
    assert outcomes(warm) == outcomes(alone)
    assert all(answer["cached"] >= 32 for answer in warm), "nothing came from the cache"


def test_answers_do_not_depend_on_preemption(bundled, requests, alone, tmp_path):
    engine = _engine(
        bundled, num_gpu_blocks_override=28, block_size=32, enable_prefix_caching=False
    )
    result = engine.run(tmp_path, requests)
    assert result["metrics"]["vllm:num_preemptions"] > 0, "no request was put back to wait"
    assert outcomes(result["rounds"][0]) == outcomes(alone)


@pytest.mark.parametrize("environment", [{"OMP_NUM_THREADS": "2"}, {"LAYERCAST_ISA": "avx2"}])
def test_answers_do_not_depend_on_threads_or_instruction_set(
    bundled, requests, alone, tmp_path, environment
):
    engine = Engine(bundled, environment=environment)
    (together,) = engine.run(tmp_path, requests)["rounds"]
    assert outcomes(together) == outcomes(alone)


def test_samples_of_one_request_are_those_of_following_seeds(bundled, prompts, tmp_path):
    several = sampled(prompts[1], 5, n=3)
    single = [sampled(prompts[1], seed) for seed in (5, 6, 7)]
    first, second = _engine(bundled).run(tmp_path, [several], single)["rounds"]
    apart = [{"samples": [sample]} for sample in first[0]["samples"]]
    assert outcomes(apart) == outcomes(second)


def test_requests_without_a_seed_draw_differently(bundled, prompts, tmp_path):
    """Control for the seeded ones: without a seed, the same request twice is two draws."""
    request = sampled(prompts[1], None, tokens=40)
    (answers,) = _engine(bundled).run(tmp_path, [request, request])["rounds"]
    assert outcomes(answers[:1]) != outcomes(answers[1:])


def test_stock_float32_does_depend_on_the_batch(bundled, prompts, tmp_path):
    """Control: the same comparison finds stock vLLM's float32 answers to differ."""
    requests = [greedy(prompt) for prompt in prompts]
    result = Engine(bundled, dict(STOCK)).run(tmp_path, *([r] for r in requests), requests)
    *one_by_one, together = result["rounds"]
    assert outcomes(together) != outcomes([answer for (answer,) in one_by_one])
