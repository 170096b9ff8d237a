"""Contract under test: a small model of a configuration takes every path of the large one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3MoeConfig,
)

from layercast.auditing.shrinking import shrunken
from layercast.auditing.windows import rope_switch

LLAMA_70B = LlamaConfig(
    hidden_size=8192,
    intermediate_size=28672,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
    vocab_size=128256,
    max_position_embeddings=131072,
    bos_token_id=128000,
    eos_token_id=[128001, 128008],
    rope_parameters={
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
)
LONGROPE = Phi3Config(
    hidden_size=3072,
    num_attention_heads=32,
    num_hidden_layers=32,
    max_position_embeddings=131072,
    original_max_position_embeddings=4096,
    rope_parameters={
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 4096,
        "short_factor": [1.0] * 48,
        "long_factor": [2.0] * 48,
    },
)
LARGE = {
    "llama": LLAMA_70B,
    "mistral": MistralConfig(sliding_window=4096),
    "qwen2_hybrid": Qwen2Config(
        num_hidden_layers=36, use_sliding_window=True, sliding_window=4096, max_window_layers=28
    ),
    "gemma3": Gemma3TextConfig(num_hidden_layers=26),
    "phi3": LONGROPE,
    "gpt2": GPT2Config(n_layer=48, n_embd=1600, n_head=25),
    "qwen3_moe": Qwen3MoeConfig(mlp_only_layers=[3], num_hidden_layers=48),
    "deepseek_v3": DeepseekV3Config(),
}


@pytest.mark.parametrize("name", LARGE)
def test_shrunken_models_are_small_and_keep_what_decides_the_code(name):
    large = LARGE[name]
    before = large.to_dict()
    small = shrunken(large)
    assert large.to_dict() == before
    model = AutoModelForCausalLM.from_config(small)
    assert sum(parameter.numel() for parameter in model.parameters()) < 2**25
    assert small.num_hidden_layers < large.num_hidden_layers
    assert set(getattr(small, "layer_types", None) or []) == set(
        getattr(large, "layer_types", None) or []
    )
    if name != "deepseek_v3":  # heads of several sizes, each kept by its own name
        head_dim = getattr(large, "head_dim", None) or large.hidden_size // (
            large.num_attention_heads
        )
        small_head = getattr(small, "head_dim", None) or small.hidden_size // (
            small.num_attention_heads
        )
        assert small_head == head_dim
    if name not in ("gpt2", "deepseek_v3"):
        ratio = large.num_attention_heads // large.num_key_value_heads
        assert small.num_attention_heads == ratio * small.num_key_value_heads


def test_rope_scaling_keeps_its_ratio():
    small = shrunken(LLAMA_70B)
    assert small.rope_parameters["original_max_position_embeddings"] == 32
    assert small.max_position_embeddings == 32 * 16
    assert small.rope_parameters["factor"] == 8.0
    assert LLAMA_70B.rope_parameters["original_max_position_embeddings"] == 8192


def test_switch_of_longrope_comes_into_reach():
    assert rope_switch(SimpleNamespace(config=LONGROPE)) == 4096
    assert rope_switch(SimpleNamespace(config=shrunken(LONGROPE))) == 32


def test_layers_of_a_list_are_renumbered():
    small = shrunken(LARGE["qwen3_moe"])
    assert small.num_hidden_layers == 3  # two mixtures, and the one dense layer
    assert small.mlp_only_layers == [2]
    assert small.num_experts == 16  # 8 are chosen for each token
