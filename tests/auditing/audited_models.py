"""Tiny random checkpoints of the architectures that were covered first."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Qwen2Config,
    Qwen3Config,
)

_SHAPE = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
CONFIGS = {
    "llama": (LlamaConfig, {}),
    "mistral": (MistralConfig, {"sliding_window": 16}),
    "qwen2": (Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, {}),
}
MIXTURE = (MixtralConfig, {"num_local_experts": 4, "num_experts_per_tok": 2})


def config(architecture: str, **changes):
    cls, options = MIXTURE if architecture == "mixtral" else CONFIGS[architecture]
    return cls(**{**_SHAPE, **options, **changes})


def save_checkpoint(folder: Path, architecture: str, **changes) -> Path:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(architecture, **changes), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return folder
