"""Contract under test: 1, 2 and 4 ranks give the same tokens and the same bits."""

from __future__ import annotations

import pytest
from engines import LAYERCAST, STOCK, Engine, greedy, outcomes
from test_vllm_against_transformers import check_equal
from tiny_models import save_checkpoint

pytestmark = pytest.mark.vllm

# The ranks share the cores there are.
UNBOUND = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def test_two_ranks_answer_as_one_does(bundled, requests, alone, tmp_path):
    engine = Engine(bundled, {**LAYERCAST, "tensor_parallel_size": 2}, UNBOUND)
    result = engine.run(tmp_path, requests, *([r] for r in requests[:4]))
    together, *apart = result["rounds"]
    assert outcomes(together) == outcomes(alone)
    assert outcomes([answer for (answer,) in apart]) == outcomes(alone[:4])


def test_stock_float32_on_two_ranks_differs(bundled, prompts, tmp_path):
    """Control: stock vLLM's float32 answers depend on the number of ranks."""
    requests = [greedy(prompt) for prompt in prompts]
    (one,) = Engine(bundled, STOCK).run(tmp_path / "one", requests)["rounds"]
    (two,) = Engine(bundled, {**STOCK, "tensor_parallel_size": 2}, UNBOUND).run(
        tmp_path / "two", requests
    )["rounds"]
    assert outcomes(two) != outcomes(one)


@pytest.mark.parametrize(
    ("architecture", "ranks"),
    # Four ranks share two heads of keys and values; gemma2's table is scaled, tied and capped.
    [("llama", 2), ("llama", 4), ("qwen2", 2), ("gemma2", 2)],
)
def test_ranks_and_transformers_agree(architecture, ranks, tmp_path):
    changes = {"num_key_value_heads": 2} if architecture == "gemma2" else {}
    folder = save_checkpoint(tmp_path / "checkpoint", architecture, **changes)
    check_equal(
        folder,
        tmp_path / "engine",
        environment=UNBOUND,
        tensor_parallel_size=ranks,
    )


def test_three_ranks_are_refused(tmp_path):
    folder = save_checkpoint(
        tmp_path / "checkpoint",
        "llama",
        hidden_size=96,
        intermediate_size=192,
        num_attention_heads=3,
        num_key_value_heads=3,
        vocab_size=192,
    )
    engine = Engine(
        folder, {**LAYERCAST, "skip_tokenizer_init": True, "tensor_parallel_size": 3}, UNBOUND
    )
    status, _, log = engine.attempt(tmp_path / "engine")
    assert status != 0
    assert "`tensor_parallel_size` must be 1, 2, 4 or 8, got 3" in log
