"""Position ids of a forward pass: they must count each row's own tokens, as attention does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from layercast.errors import ShapeError, UnsupportedError, ValueRangeError
from layercast.integrations.transformers.positions import positions_in_columns
from layercast.ops.backends import POISON, is_capturing


def check_positions(
    positions: Tensor | None, mask: Any, seen: int | Tensor, tokens: Tensor
) -> Tensor | None:
    """Refuse position ids that do not count each row's real tokens from 0.

    The comparison is made where the tokens lie, and its outcome read: once a pass. While a CUDA
    graph is captured nothing can be read, then or when it is replayed. The comparison is captured
    instead, and whatever fails it gets a position that no table has: its logits are NaN.

    Args:
        positions: As given to the forward pass, shape (B, T) or (1, T); None for none.
        mask: As given: a padding mask of shape (B, L), packed slot positions or such for each type
            of layer, or None.
        seen: Tokens in the cache; may be a tensor on the device of the tokens.
        tokens: Ids or embeddings, shape (B, T, ...).

    Returns:
        The position ids to go on with, while a CUDA graph is captured; else None.

    Raises:
        ValueRangeError: Position ids that padding would shift.
        ShapeError: A padding mask shorter than the sequence.
        UnsupportedError: A mask of another kind than padding.
    """
    device, length = tokens.device, tokens.shape[1]
    if isinstance(mask, dict):  # made by `slot_position_mask` beforehand, for a static cache
        mask = next((m for m in mask.values() if m is not None), None)
    if mask is None and positions is None:
        return None
    counted = _counted(mask, seen, length, device)
    given = positions_in_columns(None, seen, length, device) if positions is None else positions
    wrong = given != counted
    if mask is not None:
        wrong = wrong & (counted >= 0)
    if is_capturing(tokens):
        return given.expand(wrong.shape).masked_fill(wrong, POISON)
    if bool(wrong.any()):
        _refuse(positions, mask, int(seen), tokens, wrong)
    return None


def _counted(mask: Tensor | None, seen: int | Tensor, length: int, device: torch.device) -> Tensor:
    """Positions of the tokens given, by the mask; -1 for padding."""
    if mask is None or mask.ndim == 2:
        real = None if mask is None else mask.to(device).bool()
        return positions_in_columns(real, seen, length, device)
    if mask.dtype is torch.int64 and mask.ndim == 4 and mask.shape[1:3] == (1, 1):
        return mask[:, 0, 0, :length].to(device)
    raise UnsupportedError(
        "layercast: `attention_mask` must be a padding mask of shape (batch, length), got a "
        f"{mask.dtype} mask of shape {tuple(mask.shape)}. Only causal, sliding-window and "
        "padding masks are covered."
    )


def _refuse(
    positions: Tensor | None, mask: Tensor | None, seen: int, tokens: Tensor, wrong: Tensor
) -> None:
    batch, length = tokens.shape[:2]
    if mask is not None and mask.ndim == 2 and mask.shape[1] < seen + length:
        raise ShapeError(
            f"layercast: `attention_mask` must cover the {seen} cached tokens and the "
            f"{length} given, got {mask.shape[1]} columns. Pass the mask of the whole "
            "sequence, 1 for real tokens and 0 for padding."
        )
    row = int(wrong.expand(batch, length).any(1).nonzero()[0])
    raise ValueRangeError(
        "layercast: `position_ids` must count each row's real tokens from 0, got "
        f"{'none' if positions is None else 'others'} for row {row}, whose padding or packing "
        "shifts them. Pass position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0), the "
        "columns of the tokens given, with the attention_mask; give packed sequences a row "
        "each."
    )
