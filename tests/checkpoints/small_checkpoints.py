"""Small random checkpoints to convert."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig, Qwen2Config

_SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
}
_CONFIGS = {
    "llama": LlamaConfig(**_SHAPE, tie_word_embeddings=False),
    "qwen2": Qwen2Config(**_SHAPE, tie_word_embeddings=True),
    "mixtral": MixtralConfig(**_SHAPE, num_local_experts=3, num_experts_per_tok=2),
}


def save_small(
    folder: Path, name: str, dtype: torch.dtype = torch.bfloat16, *, max_shard_size: str = "5GB"
) -> Path:
    """Write one; "llama" keeps its head apart, "qwen2" ties it, "mixtral" has experts."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(_CONFIGS[name], dtype=torch.float32)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    return folder


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """Every tensor of every safetensors file, by file and name."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {f"{path.name}:{name}": file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return found


def config_of(folder: Path) -> dict[str, Any]:
    """The content of config.json."""
    return json.loads((folder / "config.json").read_text())


def change_config(folder: Path, **entries: Any) -> None:
    """Write entries into config.json."""
    (folder / "config.json").write_text(json.dumps({**config_of(folder), **entries}))


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Bitwise equality of values and dtype."""
    kind = {8: torch.int64, 4: torch.int32, 2: torch.int16}[a.element_size()]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(kind), b.view(kind))
