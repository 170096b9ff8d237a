"""Contract under test: an answer in vLLM depends on its own request alone.

Every test compares tokens and the bits of all log-probabilities told with those of the same
requests served one by one. Half of the requests are greedy, half are drawn with a seed.
"""

from __future__ import annotations

import pytest
from engines import LAYERCAST, STOCK, Engine, greedy, outcomes, sampled
from tiny_models import random_tokens, save_checkpoint

from layercast.study.instruction_sets import available

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


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Rows of thousands of terms, as real models have them."""
    return save_checkpoint(
        tmp_path_factory.mktemp("wide") / "checkpoint",
        "llama",
        hidden_size=1024,
        intermediate_size=4096,
        num_attention_heads=8,
        head_dim=128,
    )


WIDE = {"skip_tokenizer_init": True, "max_model_len": 256}
CHUNKED = {"max_num_batched_tokens": 16, "max_num_seqs": 4}


def _wide_requests():
    prompts = [random_tokens(length, seed=length).tolist() for length in range(20, 180, 10)]
    return [greedy(prompt, tokens=16, ignore_eos=True) for prompt in prompts]


def _wide_outcomes(wide, folder, options, environment=None):
    """One by one, all at once, and in chunks."""
    requests = _wide_requests()
    environment = environment or {}
    *apart, together = Engine(wide, {**options, **WIDE}, environment).run(
        folder / "whole", *([r] for r in requests), requests
    )["rounds"]
    engine = Engine(wide, {**options, **WIDE, **CHUNKED}, environment)
    (chunked,) = engine.run(folder / "chunked", requests)["rounds"]
    return outcomes([answer for (answer,) in apart]), outcomes(together), outcomes(chunked)


def test_a_wide_model_does_not_depend_on_the_batch(wide, tmp_path):
    apart, together, chunked = _wide_outcomes(wide, tmp_path, LAYERCAST)
    assert together == apart
    assert chunked == apart


def test_an_order_chosen_by_rows_depends_on_the_batch(wide, tmp_path):
    """Control: the same comparisons find answers of a misordered `linear` to differ."""
    order = {"LAYERCAST_TEST_ORDER_BY_ROWS": "1"}
    apart, together, chunked = _wide_outcomes(wide, tmp_path, LAYERCAST, order)
    assert together != apart
    assert chunked != apart


@pytest.mark.skipif(
    "avx512" not in available(), reason="needs AVX-512: stock kernels of AVX2 agree on these shapes"
)
def test_stock_float32_depends_on_the_batch(wide, tmp_path):
    """Control: the same comparisons find stock vLLM's float32 answers to differ."""
    apart, together, chunked = _wide_outcomes(wide, tmp_path, STOCK)
    assert together != apart
    assert chunked != apart


@pytest.mark.skipif("avx512" not in available(), reason="needs a CPU with AVX-512")
def test_stock_float32_depends_on_the_instruction_set(bundled, prompts, tmp_path):
    """Control of the machine's axis."""
    requests = [greedy(prompt) for prompt in prompts]
    narrow = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    narrow["MKL_ENABLE_INSTRUCTIONS"] = "AVX2"
    (wide,) = Engine(bundled, STOCK).run(tmp_path / "wide", requests)["rounds"]
    (avx2,) = Engine(bundled, STOCK, narrow).run(tmp_path / "avx2", requests)["rounds"]
    assert outcomes(avx2) != outcomes(wide)
