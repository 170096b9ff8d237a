"""One sequence's logits computed in every way that must not matter; shared by test and control."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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


def axes(model) -> dict[str, Callable[[], Iterator[tuple[Tensor, Tensor]]]]:
    """Axis to the pairs (expected, got) that must hold the same bits."""
    expected = [alone(model, tokens) for tokens in SEQUENCES]

    def batch() -> Iterator[tuple[Tensor, Tensor]]:
        for size in (3, 8):
            group = SEQUENCES[:size]
            for turn in range(size):  # every sequence at every position of the batch
                order = [(turn + i) % size for i in range(size)]
                got = in_batch(model, [group[i] for i in order], side="left")
                yield from ((expected[i], g) for i, g in zip(order, got, strict=True))

    def padding() -> Iterator[tuple[Tensor, Tensor]]:
        for side in ("left", "right"):
            for filler in (0, 7):
                got = in_batch(model, SEQUENCES[:2], side=side, filler=filler)
                yield from zip(expected[:2], got, strict=True)

    def split() -> Iterator[tuple[Tensor, Tensor]]:
        for size in (1, 7, 64):
            yield expected[0], in_chunks(model, SEQUENCES[0], size)

    def static_cache() -> Iterator[tuple[Tensor, Tensor]]:
        for size in (1, 64):
            yield expected[0], in_chunks(model, SEQUENCES[0], size, StaticCache)

    def decode() -> Iterator[tuple[Tensor, Tensor]]:
        got = padded_decode(model, [SEQUENCES[0], SEQUENCES[2], SEQUENCES[3]], prompt=50)
        for i, logits in zip((0, 2, 3), got, strict=True):
            yield expected[i][-len(logits) :], logits

    def threads() -> Iterator[tuple[Tensor, Tensor]]:
        torch.set_num_threads(1)
        for reference, tokens in zip(expected, SEQUENCES, strict=True):
            yield reference, alone(model, tokens)
        torch.set_num_threads(2)

    return {
        "batch": batch,
        "padding": padding,
        "split": split,
        "static_cache": static_cache,
        "decode": decode,
        "threads": threads,
    }


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Bitwise equality: signed zeros told apart, NaN as NaN."""
    kind = {4: torch.int32, 2: torch.int16}[a.element_size()]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(kind), b.view(kind))


def differing(model, axis: str) -> int:
    """How many of an axis's pairs differ."""
    return sum(not same_bits(expected, got) for expected, got in axes(model)[axis]())


def differs(model, axis: str) -> bool:
    """Whether any pair does; stops at the first."""
    return any(not same_bits(expected, got) for expected, got in axes(model)[axis]())


AXES = ("batch", "padding", "split", "static_cache", "decode", "threads")
