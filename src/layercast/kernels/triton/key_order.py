"""The keys of each sequence by ascending position, wherever they lie in memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from layercast.kernels.triton.launch import OPTIONS

TILE = 64
BLOCK = 1024
"""Slots looked at a time to tell whether positions ascend one by one."""


@triton.jit(do_not_specialize=["Tk"])
def key_order_kernel(
    key_positions, slots, positions, counts, twice, Tk, TILE: tl.constexpr, BLOCK: tl.constexpr
):
    """A slot's rank is the number of keys before it: of lower slots where positions ascend one by
    one, else counted against every other. Integers only; grid (tiles of slots, sequences).
    """
    b = tl.program_id(1).to(tl.int64)
    own = key_positions + b * Tk
    tile = tl.program_id(0) * TILE
    i = tile + tl.arange(0, TILE)
    lowest = tl.full((BLOCK,), 2**62, tl.int64)
    highest = tl.full((BLOCK,), -(2**62), tl.int64)
    valid = tl.zeros((BLOCK,), tl.int32)
    before = tl.zeros((BLOCK,), tl.int32)
    for start in tl.range(0, Tk, BLOCK):
        j = start + tl.arange(0, BLOCK)
        other = tl.load(own + j, mask=j < Tk, other=-1)
        lowest = tl.where(other >= 0, tl.minimum(lowest, other - j), lowest)
        highest = tl.where(other >= 0, tl.maximum(highest, other - j), highest)
        valid += (other >= 0).to(tl.int32)
        before += ((other >= 0) & (j < tile)).to(tl.int32)
    position = tl.load(own + i, mask=i < Tk, other=-1)
    rank = tl.zeros((TILE,), tl.int32)
    equal = tl.zeros((TILE,), tl.int32)
    if tl.min(lowest, 0) == tl.max(highest, 0):
        here = (position >= 0).to(tl.int32)
        rank += tl.sum(before, 0) + tl.cumsum(here, 0) - here
    else:
        for start in tl.range(0, Tk, TILE):
            j = start + tl.arange(0, TILE)
            other = tl.load(own + j, mask=j < Tk, other=-1)[None, :]
            rank += tl.sum(((other >= 0) & (other < position[:, None])).to(tl.int32), 1)
            same = (other == position[:, None]) & (j[None, :] != i[:, None])
            equal += tl.sum(same.to(tl.int32), 1)
    present = (i < Tk) & (position >= 0)
    tl.store(slots + b * Tk + rank, i, mask=present)
    tl.store(positions + b * Tk + rank, position, mask=present)
    tl.store(twice + b + tl.zeros((TILE,), tl.int64), 1, mask=present & (equal > 0))
    if tl.program_id(0) == 0:
        tl.store(counts + b, tl.sum(valid, 0))


def key_order(key_positions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Slots and positions of each sequence's keys, ascending, and how many there are.

    Args:
        key_positions: int64, shape (B, Tk); -1 marks an empty slot.

    Returns:
        slots: int32, shape (B, Tk), of which the first `counts[b]` are written.
        positions: int64, likewise.
        counts: int32, shape (B,).
        twice: int32, shape (B,): 1 where a position occurs twice, else 0.
    """
    key_positions = key_positions.contiguous()
    B, Tk = key_positions.shape
    device = key_positions.device
    slots = torch.empty((B, Tk), dtype=torch.int32, device=device)
    positions = torch.empty_like(key_positions)
    counts = torch.zeros(B, dtype=torch.int32, device=device)
    twice = torch.zeros(B, dtype=torch.int32, device=device)
    if B and Tk:
        grid = (triton.cdiv(Tk, TILE), B)
        key_order_kernel[grid](
            key_positions, slots, positions, counts, twice, Tk, TILE, BLOCK, **OPTIONS
        )
    return slots, positions, counts, twice
