"""One sequence's logits computed in ways that must not matter; shared by tests and controls."""

from __future__ import annotations

import torch
from tiny_models import random_tokens
from torch import Tensor
from transformers import DynamicCache, StaticCache

# Around the block of 64 keys and Mistral's window of 16; the first is the one compared.
LENGTHS = (70, 5, 33, 64, 65, 1, 17, 70)
SEQUENCES = [random_tokens(length, seed) for seed, length in enumerate(LENGTHS)]


def alone(model, tokens: Tensor) -> Tensor:
    """Logits (T, V) of one sequence by itself, in one call."""
    with torch.inference_mode():
        return model(tokens[None], use_cache=False).logits[0]


def in_batch(model, batch: list[Tensor], *, side: str, filler: int = 0) -> list[Tensor]:
    """Logits of each sequence of a padded batch, padding removed."""
    width = max(len(tokens) for tokens in batch)
    ids = torch.full((len(batch), width), filler)
    mask = torch.zeros_like(ids)
    spans = []
    for row, tokens in enumerate(batch):
        start = width - len(tokens) if side == "left" else 0
        spans.append(slice(start, start + len(tokens)))
        ids[row, spans[-1]] = tokens
        mask[row, spans[-1]] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        logits = model(ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    return [logits[row, span] for row, span in enumerate(spans)]


def in_chunks(model, tokens: Tensor, size: int, cache_class=DynamicCache) -> Tensor:
    """Logits of one sequence fed through a cache, `size` tokens at a time."""
    if cache_class is StaticCache:
        cache = StaticCache(config=model.config, max_cache_len=96)
    else:
        cache = DynamicCache(config=model.config)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(tokens), size):
            chunk = tokens[None, start : start + size]
            parts.append(model(chunk, past_key_values=cache, use_cache=True).logits[0])
    return torch.cat(parts)


def padded_decode(model, batch: list[Tensor], prompt: int) -> list[Tensor]:
    """Left-padded prompts through a cache, then single tokens; logits from the prompt's end on."""
    width = max(len(tokens) for tokens in batch)
    ids = torch.stack([torch.cat((torch.zeros(width - len(t)).long(), t)) for t in batch])
    mask = torch.stack([(torch.arange(width) >= width - len(t)).long() for t in batch])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    steps = []
    with torch.inference_mode():
        for start, end in [(0, prompt), *((i, i + 1) for i in range(prompt, width))]:
            out = model(
                ids[:, start:end],
                attention_mask=mask[:, :end],
                position_ids=positions[:, start:end],
                past_key_values=cache,
                use_cache=True,
            )
            steps.append(out.logits[:, -1])
    stacked = torch.stack(steps, dim=1)
    return [stacked[row, -min(len(t), stacked.shape[1]) :] for row, t in enumerate(batch)]


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Bitwise equality: signed zeros told apart, NaN as NaN."""
    kind = {8: torch.int64, 4: torch.int32, 2: torch.int16}[a.element_size()]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(kind), b.view(kind))
