"""Tiny random checkpoints whose sums are sensitive to order: weights of wide spread, long rows."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

VOCABULARY = 131
_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 208,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "original_max_position_embeddings": 96,
    "short_factor": [1.0 + 0.05 * i for i in range(12)],
    "long_factor": [2.0 + 0.5 * i for i in range(12)],
}
CONFIGS: dict[str, tuple[type[PreTrainedConfig], dict]] = {
    "llama": (LlamaConfig, {"tie_word_embeddings": False, "rope_parameters": LLAMA3_ROPE}),
    "qwen2": (Qwen2Config, {"tie_word_embeddings": True}),
    # One layer sees everything, the other a window: a cache of two kinds.
    "qwen2_hybrid": (
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    ),
    "qwen3": (Qwen3Config, {"tie_word_embeddings": True}),
    "mistral": (MistralConfig, {"tie_word_embeddings": False, "sliding_window": 16}),
    "gemma2": (
        Gemma2Config,
        {"head_dim": 256, "num_attention_heads": 2, "num_key_value_heads": 1, "sliding_window": 16}
        | {"query_pre_attn_scalar": 144, "attn_logit_softcapping": 50.0},
    ),
    "gemma3": (
        Gemma3TextConfig,
        {"head_dim": 256, "num_attention_heads": 2, "num_key_value_heads": 1, "sliding_window": 16}
        | {"layer_types": ["sliding_attention", "full_attention"]}
        | {"final_logit_softcapping": 30.0},
    ),
    "phi3": (
        Phi3Config,
        {
            "tie_word_embeddings": False,
            "original_max_position_embeddings": 96,
            "rope_parameters": LONGROPE | {"partial_rotary_factor": 0.75},
        },
    ),
    "olmo2": (Olmo2Config, {}),
    "granite": (
        GraniteConfig,
        {"embedding_multiplier": 12.0, "logits_scaling": 3.0, "residual_multiplier": 0.22}
        | {"attention_multiplier": 0.0443},
    ),
    "smollm3": (SmolLM3Config, {"no_rope_layers": [1, 0]}),
    "mixtral": (MixtralConfig, {"num_local_experts": 5, "num_experts_per_tok": 2}),
    "qwen3_moe": (
        Qwen3MoeConfig,
        {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 72}
        | {"norm_topk_prob": False, "mlp_only_layers": [1], "decoder_sparse_step": 1},
    ),
    "gpt2": (GPT2Config, {"n_positions": 256, "n_inner": 208, "num_key_value_heads": 4}),
    "gpt_neox": (
        GPTNeoXConfig,
        {"use_parallel_residual": True, "attention_bias": True, "num_key_value_heads": 4},
    ),
}
# Each architecture in another storage, so that the matrix covers all of them.
STORAGE = {
    name: {"qwen3": torch.float16, "granite": torch.float16, "mistral": torch.float32}.get(
        name, torch.bfloat16
    )
    for name in CONFIGS
}


def config(architecture: str, **changes) -> PreTrainedConfig:
    cls, options = CONFIGS[architecture]
    return cls(**{**_SHAPE, **options, **changes})


def save_checkpoint(
    folder: Path,
    architecture: str,
    dtype: torch.dtype | None = None,
    *,
    seed: int = 0,
    max_shard_size: str = "5GB",
    **changes,
) -> Path:
    """Write a checkpoint of random weights; `changes` go into the configuration."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config(architecture, **changes), dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0.0, 0.5)
            elif parameter.ndim == 1:  # of a norm; Gemma's are added to one
                low = -0.5 if architecture.startswith("gemma") else 0.5
                parameter.uniform_(low, low + 1.0)
            else:
                parameter.normal_(0.0, 2.0 / parameter.shape[-1] ** 0.5)
    model.to(dtype or STORAGE[architecture]).save_pretrained(folder, max_shard_size=max_shard_size)
    return folder


def random_tokens(length: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (length,), generator=generator)
