"""Rotary position embedding of packed tokens, from a table made when the model is loaded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from layercast import ops
from layercast.errors import LayercastError, UnsupportedError
from layercast.integrations.transformers.rope import frequencies_of
from layercast.modules import RopeFrequencies

# The stock table's angles are float32 products; of positions this small they are accurate.
_POSITIONS = 32
_AGREEMENT = 1e-4


class RotaryEmbedding(nn.Module):
    """`layercast.ops.rotary` by positions, behind the signature of vLLM's."""

    def __init__(self, frequencies: RopeFrequencies, head_size: int, positions: int) -> None:
        """Make the table.

        Args:
            frequencies: Of the channels rotated.
            head_size: Channels of a head, those that pass through included.
            positions: Longest sequence, in tokens.
        """
        super().__init__()
        self.head_size = head_size
        self.frequencies = frequencies
        inv_freq = frequencies.inv_freq
        # Plain attributes: buffers would follow dtype casts.
        self._cos, self._sin = ops.rotary_table(
            torch.arange(positions, device="cpu"),
            head_dim=frequencies.head_dim,
            base=frequencies.base,
            inv_freq=None
            if inv_freq is None
            else torch.tensor(inv_freq, dtype=torch.float64, device="cpu"),
            attention_scaling=frequencies.attention_scaling,
        )

    def table(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines.

        Args:
            positions: int64, shape (T,).

        Returns:
            Float32, each (T, 1, channels rotated).
        """
        if self._cos.device != positions.device:
            self._cos, self._sin = self._cos.to(positions.device), self._sin.to(positions.device)
        return (
            self._cos.index_select(0, positions)[:, None],
            self._sin.index_select(0, positions)[:, None],
        )

    def forward(self, positions: Tensor, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Rotate.

        Args:
            positions: int64, shape (T,), counted in each sequence.
            query: Float32, shape (T, Hq * D) or (T, Hq, D).
            key: Float32, shape (T, Hkv * D) or (T, Hkv, D).

        Returns:
            Both rotated, in their shapes.
        """
        cos, sin = self.table(positions)
        tokens = positions.shape[0]
        # A token is a batch of its own, so that what comes out is packed as what went in.
        q, k = ops.rotary(
            query.view(tokens, -1, self.head_size).unsqueeze(2),
            key.view(tokens, -1, self.head_size).unsqueeze(2),
            cos,
            sin,
        )
        return q.view(query.shape), k.view(key.shape)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        f = self.frequencies
        return (
            f"head_dim={f.head_dim}, base={f.base}, attention_scaling={f.attention_scaling}, "
            f"positions={len(self._cos)}"
        )


def rotary_of(
    stock: Any, config: Any, *, positions: int, context_length: int | None
) -> RotaryEmbedding | None:
    """Our embedding with the table of a stock one.

    Args:
        stock: A rotary embedding of vLLM.
        config: Of the model, as transformers has it.
        positions: Longest sequence that is served, in tokens.
        context_length: What scalings that depend on a length are fixed for; None for the length
            the model was trained on.

    Returns:
        The module whose table agrees with the stock one; None if no formula of ours does.

    Raises:
        UnsupportedError: The scaling is fixed for shorter sequences than are to be served.
    """
    parameters = getattr(config, "rope_parameters", None)
    table = _stock_table(stock)
    if not isinstance(parameters, dict) or table is None:
        return None
    several = parameters if "rope_theta" not in parameters else {None: parameters}
    for options in several.values():
        try:
            frequencies = frequencies_of(config, options, context_length)
        except (TypeError, AttributeError, KeyError, LayercastError):
            continue  # another rope type, or parameters that are incomplete
        if frequencies.head_dim != stock.rotary_dim or frequencies.base != stock.base:
            continue
        limit = frequencies.position_limit
        if limit is not None and limit < positions:
            raise UnsupportedError(
                f"layercast: `--max-model-len` must be at most {limit}, the length that this "
                f"model's rope scaling is fixed for, got {positions}. Or set context_length in the "
                "quantization_config, which fixes the scaling of every sequence for that length."
            )
        rotary = RotaryEmbedding(frequencies, stock.head_size, positions)
        if _agrees(rotary, table):
            return rotary
    return None


def _stock_table(stock: Any) -> Tensor | None:
    """Cosines and sines of each position, shape (positions, channels rotated)."""
    if hasattr(stock, "long_short_cos_sin_cache"):
        first = stock.original_max_position_embeddings if stock.use_long_rope else 0
        table: Tensor = stock.long_short_cos_sin_cache[first:]
        return table
    plain: Tensor | None = getattr(stock, "cos_sin_cache", None)
    return plain if stock.is_neox_style else None


def _agrees(rotary: RotaryEmbedding, table: Tensor) -> bool:
    """Fail closed where the stock module computes something else than the parameters say."""
    compared = min(_POSITIONS, len(table), len(rotary._cos))
    cos, sin = rotary.table(torch.arange(compared))
    half = rotary.frequencies.head_dim // 2
    ours = torch.cat((cos[:, 0, :half], sin[:, 0, :half]), dim=-1)
    tolerance = _AGREEMENT * rotary.frequencies.attention_scaling
    return ours.shape == table[:compared].shape and torch.allclose(
        ours, table[:compared].float().cpu(), rtol=0.0, atol=tolerance
    )
