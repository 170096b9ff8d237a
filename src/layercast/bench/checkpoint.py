"""Random checkpoints of real models' shapes, and the models of each variant on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from layercast.bench.case import Variant
from layercast.bench.inputs import SEED
from layercast.errors import UnsupportedError

#: Qwen2.5-0.5B's config.json (Qwen Team 2024, arXiv:2412.15115).
_HALF_BILLION = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "tie_word_embeddings": True,
}

#: Qwen2.5-1.5B's config.json.
_ONE_AND_A_HALF_BILLION = _HALF_BILLION | {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "max_position_embeddings": 131_072,
}

#: Llama-3.2-1B's sizes (1.24 B parameters), made as a Qwen2 model like the other.
_BILLION = {
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32_768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
    "tie_word_embeddings": True,
}

NAME = "0.5 B model"
LARGER_NAME = "1 B model"
ONE_AND_A_HALF_NAME = "1.5 B model"

#: Values of the config, by the name of the model in a case.
MODELS: dict[str, dict[str, Any]] = {
    NAME: _HALF_BILLION,
    LARGER_NAME: _BILLION,
    ONE_AND_A_HALF_NAME: _ONE_AND_A_HALF_BILLION,
}

DISTRIBUTION = "weights ~ N(0, 0.02^2), rounded to bfloat16; biases 0, gains 1; token ids uniform"


def save_random_checkpoint(folder: Path, name: str = NAME) -> Path:
    """Write a random Qwen2 model in bfloat16; its speed is that of a trained one.

    Args:
        folder: Where; made if need be.
        name: One of `MODELS`.

    Returns:
        `folder`.
    """
    from transformers import AutoModelForCausalLM, Qwen2Config
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = Qwen2Config(**MODELS[name])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def load_variant(folder: Path, variant: Variant) -> Any:
    """Load a checkpoint the way a variant runs it.

    Args:
        folder: The checkpoint.
        variant: Any that has a model.

    Returns:
        A causal language model in evaluation mode, on the CPU.

    Raises:
        UnsupportedError: `variant` is not a model's.
    """
    from transformers import AutoModelForCausalLM

    import layercast
    from layercast.bench.published import publish

    dtypes = {
        Variant.STOCK_BF16: torch.bfloat16,
        Variant.STOCK_FP16: torch.float16,
        Variant.STOCK_FP32: torch.float32,
        Variant.PUBLISHED: torch.bfloat16,
    }
    if variant is Variant.LAYERCAST:
        return layercast.load(folder, local_files_only=True)
    if variant not in dtypes:
        raise UnsupportedError(
            f"bench: `variant` must be one that runs a model, got {variant}. "
            f"Choose among {', '.join([Variant.LAYERCAST, *dtypes])}."
        )
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtypes[variant], attn_implementation="sdpa", local_files_only=True
    ).eval()
    return publish(model) if variant is Variant.PUBLISHED else model
