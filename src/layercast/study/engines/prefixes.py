"""Warm prefixes: keys and values of the prompts, computed before and apart from the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from layercast.errors import UnsupportedError
from layercast.modules.cache_name import cache_of


def warm_cache(model: Any, prompts: Sequence[Sequence[int]]) -> DynamicCache | None:
    """Compute all but the last token of each prompt, each prompt alone, into one batch's cache.

    What a server does that finds a prompt in its prefix cache: the keys and values come from an
    earlier call of another shape.

    Args:
        model: A causal language model on the CPU, in evaluation mode.
        prompts: Token ids, none of them empty.

    Returns:
        The cache of the left-padded batch without its last column; None if that is the only one.

    Raises:
        UnsupportedError: The model's cache forgets tokens (a sliding window) or is of another
            kind, so that prompts of several lengths cannot be laid side by side.
    """
    width = max(len(prompt) for prompt in prompts) - 1
    if width == 0:
        return None
    apart = [_layers(model, prompt[:-1]) for prompt in prompts]
    longest = next(layers for layers in apart if layers)
    empty = [(keys[:, :, :0], values[:, :, :0]) for keys, values in longest]
    whole = DynamicCache(config=model.config)
    for number in range(len(longest)):
        rows = [(layers or empty)[number] for layers in apart]
        whole.update(
            torch.cat([_padded(key, width) for key, _ in rows]),
            torch.cat([_padded(value, width) for _, value in rows]),
            number,
        )
    return whole


def _layers(model: Any, tokens: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    if not tokens:
        return []
    ids = torch.tensor([list(tokens)])
    with torch.inference_mode():
        output = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            position_ids=torch.arange(len(tokens))[None],
            use_cache=True,
        )
    cache = cache_of(output)
    if not all(isinstance(layer, DynamicLayer) and not _slides(layer) for layer in cache.layers):
        raise UnsupportedError(
            "study run: `axes.prefix_cache` must be cold with this model, got warm: its cache "
            "forgets what is past its window, so prefixes of several lengths cannot be laid side "
            "by side. Leave the axis out."
        )
    return [(layer.keys, layer.values) for layer in cache.layers]


def _slides(layer: DynamicLayer) -> bool:
    return bool(getattr(layer, "is_sliding", False))


def _padded(states: Tensor, width: int) -> Tensor:
    """Fill (1, heads, tokens, dim) up on the left; what stands there is masked."""
    return torch.nn.functional.pad(states, (0, 0, width - states.shape[2], 0))
