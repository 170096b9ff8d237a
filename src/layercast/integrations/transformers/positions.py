"""Slot positions in place of attention masks.

The contract cuts keys into blocks counted from the sequence's own first token,
so attention needs positions, not a matrix of permissions. The mask function
registered with transformers therefore returns them, packed into the 4-D tensor
that models pass through untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.masking_utils import (
    causal_mask_function,
    sliding_window_causal_mask_function,
    sliding_window_overlay,
)

from layercast.errors import ShapeError, UnsupportedError
from layercast.ops.backends import POISON, is_capturing


class SlotPositions(NamedTuple):
    """Where the tokens of one attention call lie in their own sequences.

    Attributes:
        query: int64, shape (B, Tq); -1 for padding.
        key: int64, shape (B, Tk), one for each cache slot; -1 for padding and empty slots.
        window: A key is visible if `0 <= query - key < window`; None for no window.
    """

    query: Tensor
    key: Tensor
    window: int | None


def count_positions(padding_mask: Tensor) -> Tensor:
    """Positions counted from each row's own first real token.

    Args:
        padding_mask: Bool, shape (B, L), True for real tokens.

    Returns:
        int64, shape (B, L); -1 where the mask is False.
    """
    return (padding_mask.cumsum(dim=1) - 1).masked_fill_(~padding_mask, -1)


def positions_in_columns(
    padding_mask: Tensor | None, first: int | Tensor, length: int, device: torch.device | str
) -> Tensor:
    """Positions of the tokens in `length` columns from `first` on, computed where they lie.

    Args:
        padding_mask: Bool, shape (B, L); None for no padding.
        first: Column of the first token, on the device if a tensor: it is not read.
        length: How many columns.
        device: Of the result.

    Returns:
        int64, shape (B, length), or (1, length) without a mask; -1 for padding, and `POISON`
        where the mask has no such column.
    """
    columns = torch.arange(length, device=device) + first
    if padding_mask is None:
        return columns[None]
    counted = count_positions(padding_mask)
    width = padding_mask.shape[1]
    if width == 0:
        return counted.new_full((counted.shape[0], length), POISON)
    found = counted.index_select(1, columns.clamp(max=width - 1))
    return found.masked_fill(columns >= width, POISON)


def slot_position_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    device: torch.device | str = "cpu",
    **_: Any,
) -> Tensor:
    """The mask function of the `layercast` attention, called once a forward pass and layer type.

    Args:
        batch_size: B.
        q_length: Tq.
        kv_length: Tk, slots the cache returns, empty ones included.
        q_offset: Slot of the first query.
        kv_offset: Slot of the first key; a rolled sliding-window cache has dropped those before it.
        mask_function: The pattern; only causal and sliding-window causal ones are supported.
        attention_mask: Bool padding mask, shape (B, L), from slot 0; None for no padding.
        local_size: Window of a sliding pattern.
        device: Of the result.

    Returns:
        A packed `SlotPositions`, int64, shape (B, 1, 1, Tq + Tk + 1).

    Raises:
        UnsupportedError: Another pattern, or a sliding-window cache that has dropped visible keys.
        ShapeError: The padding mask does not reach the last query.
    """
    window = _window_of(mask_function, local_size)
    if window is None and kv_offset:
        raise UnsupportedError(
            "layercast attention: the key/value cache must hold every key that the model's mask "
            f"shows, got a sliding-window cache that has dropped {kv_offset}. Pass a cache "
            "without windows, DynamicCache() without a config."
        )
    if isinstance(q_offset, Tensor) and q_offset.is_cuda and not kv_offset:
        # A static cache counts on the device. Its slots past the last query are shown to none.
        query = positions_in_columns(attention_mask, q_offset, q_length, device)
        keys = positions_in_columns(attention_mask, 0, kv_length, device)
        keys = keys.masked_fill(keys >= POISON, -1).expand(batch_size, -1)
        query = query.expand(batch_size, -1)
    else:
        query, keys = _positions_of_slots(
            batch_size,
            (int(q_offset), q_length),
            (kv_offset, kv_length),
            attention_mask,
            window,
            device,
        )
    if window == 0:
        # What models without sliding layers prepare all the same: a window that shows no key.
        keys, window = torch.full_like(keys, -1), None
    return pack(SlotPositions(query, keys, window))


def _positions_of_slots(
    batch_size: int,
    queries: tuple[int, int],
    keys: tuple[int, int],
    attention_mask: Tensor | None,
    window: int | None,
    device: torch.device | str,
) -> tuple[Tensor, Tensor]:
    """Positions of queries and keys, given as first slot and number of slots."""
    (first, q_length), (kv_offset, kv_length) = queries, keys
    end = first + q_length
    slots = max(end, kv_offset + kv_length)
    if attention_mask is None:
        counted = torch.arange(slots, device=device)
        counted[end:] = -1
        counted = counted.expand(batch_size, -1)
    else:
        if attention_mask.shape[1] < end:
            raise ShapeError(
                f"layercast attention: `attention_mask` must cover the {first} cached tokens and "
                f"the {q_length} given, got {attention_mask.shape[1]} columns. Pass the mask of "
                "the whole sequence, 1 for real tokens and 0 for padding."
            )
        if window and kv_offset:
            _check_window_is_cached(attention_mask, first, kv_offset, window)
        counted = count_positions(attention_mask)
        if counted.shape[1] < slots:
            counted = F.pad(counted, (0, slots - counted.shape[1]), value=-1)
    return counted[:, first:end], counted[:, kv_offset : kv_offset + kv_length]


def pack(positions: SlotPositions) -> Tensor:
    """Put slot positions into one tensor of the rank models expect of a mask.

    Args:
        positions: See `SlotPositions`.

    Returns:
        int64, shape (B, 1, 1, Tq + Tk + 1); the last column holds the window, 0 for none.
    """
    query, key, window = positions
    last = query.new_full((query.shape[0], 1), window or 0)
    packed = torch.cat((query, key, last), dim=1)[:, None, None, :]
    # Layers that get this very object skip the unpacking.
    unpacked = SlotPositions(query.contiguous(), key.contiguous(), window)
    packed.layercast_positions = unpacked  # type: ignore[attr-defined]
    return packed


def unpack(mask: Tensor | None, q_length: int, kv_length: int) -> SlotPositions:
    """Slot positions of an attention call.

    Args:
        mask: What the model passes as attention mask.
        q_length: Tq of the call.
        kv_length: Tk of the call.

    Returns:
        The positions `pack` was given.

    Raises:
        UnsupportedError: The mask was not made by `slot_position_mask`.
        ShapeError: It was made for other lengths.
    """
    positions = getattr(mask, "layercast_positions", None)
    if positions is not None and mask is not None and is_capturing(mask):
        # A graph is replayed on what the mask then holds, not on what was unpacked of it before.
        row = mask[:, 0, 0]
        positions = SlotPositions(row[:, :q_length], row[:, q_length:-1], positions.window)
    if positions is None:
        if (
            mask is None
            or mask.dtype is not torch.int64
            or mask.ndim != 4
            or mask.shape[1:3] != (1, 1)
        ):
            got = "none" if mask is None else f"a {mask.dtype} mask of shape {tuple(mask.shape)}"
            raise UnsupportedError(
                "layercast attention: `attention_mask` must be a padding mask of shape (batch, "
                f"length), got {got}. Only causal, sliding-window and padding masks are covered: "
                "pass 1 for real tokens and 0 for padding."
            )
        row = mask[:, 0, 0]
        positions = SlotPositions(
            row[:, :q_length].contiguous(),
            row[:, q_length:-1].contiguous(),
            int(row[0, -1]) or None,
        )
    if positions.query.shape[1] != q_length or positions.key.shape[1] != kv_length:
        raise ShapeError(
            f"layercast attention: `attention_mask` must be made for {q_length} queries and "
            f"{kv_length} keys, got {positions.query.shape[1]} and {positions.key.shape[1]}. Make "
            "it anew for this call, or pass the 2-D padding mask; without a cache it has one "
            "column for each token given."
        )
    return positions


def _check_window_is_cached(mask: Tensor, first: int, kv_offset: int, window: int) -> None:
    """A rolled cache keeps the last slots; with padding between, not the last tokens."""
    seen = mask[:, :first].sum(dim=1)
    dropped = mask[:, :kv_offset].sum(dim=1)
    if bool((dropped > (seen - window + 1).clamp(min=0)).any()):
        raise UnsupportedError(
            "layercast attention: `attention_mask` must hold its padding on the left when a "
            "sliding-window cache has rolled, got padding between or after real tokens, so that "
            "visible keys were dropped. Pad on the left."
        )


def _window_of(mask_function: Callable[..., Any], local_size: int | None) -> int | None:
    if mask_function is causal_mask_function and local_size is None:
        return None
    if _same_code(mask_function, _SLIDING):
        overlay, causal = _nonlocals(mask_function)["mask_functions"]
        if causal is causal_mask_function and _same_code(overlay, _OVERLAY):
            window = int(_nonlocals(overlay)["sliding_window"])
            if local_size in (None, window) and window >= 0:
                return window
    name = getattr(mask_function, "__qualname__", repr(mask_function))
    raise UnsupportedError(
        "layercast attention: `mask_function` must be causal or sliding-window causal, got "
        f"{name}. Packed, bidirectional and chunked masks are not covered: give each sequence its "
        "own row, padded on the left."
    )


_SLIDING = sliding_window_causal_mask_function(1)
_OVERLAY = sliding_window_overlay(1)


def _same_code(function: Callable[..., Any], example: Callable[..., Any]) -> bool:
    return getattr(function, "__code__", None) is example.__code__


def _nonlocals(function: Callable[..., Any]) -> dict[str, Any]:
    assert isinstance(function, FunctionType)
    cells = function.__closure__ or ()
    return dict(zip(function.__code__.co_freevars, (c.cell_contents for c in cells), strict=True))
