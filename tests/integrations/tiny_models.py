"""Tiny random checkpoints whose sums are sensitive to order: weights of wide spread, long rows."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
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
}
# Each architecture in another storage, so that the invariance matrix covers all of them.
STORAGE = {
    "llama": torch.bfloat16,
    "qwen2": torch.bfloat16,
    "qwen2_hybrid": torch.bfloat16,
    "qwen3": torch.float16,
    "mistral": torch.float32,
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
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.5)
            else:
                parameter.normal_(0.0, 2.0 / parameter.shape[1] ** 0.5)
    model.to(dtype or STORAGE[architecture]).save_pretrained(folder, max_shard_size=max_shard_size)
    return folder


def random_tokens(length: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (length,), generator=generator)
