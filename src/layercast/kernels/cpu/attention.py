"""`attention` and `paged_attention` by the C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from layercast.errors import ValueRangeError
from layercast.kernels.cpu.isa import csrc
from layercast.kernels.cpu.tensors import STORAGE
from layercast.kernels.rows import with_unit_stride


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_positions: Tensor,
    key_positions: Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """See `layercast.ops.attention`."""
    q, k, v = with_unit_stride(q), with_unit_stride(k), with_unit_stride(v)
    query_positions = query_positions.contiguous()
    key_positions = key_positions.contiguous()
    B, Hq, Tq, D = q.shape
    Hkv, Tk = k.shape[1], k.shape[2]
    o = q.new_empty((B, Tq, Hq, D))
    duplicate = csrc.attention(
        q.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        STORAGE[k.dtype],
        o.data_ptr(),
        query_positions.data_ptr(),
        key_positions.data_ptr(),
        B,
        Hq,
        Hkv,
        Tq,
        Tk,
        D,
        q.stride()[:3],
        k.stride()[:3],
        v.stride()[:3],
        scale,
        window or 0,
        softcap or 0.0,
        torch.get_num_threads(),
    )
    if duplicate >= 0:
        raise ValueRangeError(
            f"attention: `key_positions` must hold each position once per sequence, got "
            f"{duplicate} twice. Mark padding and empty slots with -1."
        )
    return o


def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    sequence_lengths: Tensor,
    cu_seqlens_q: Tensor,
    first_positions: Tensor | None,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """See `layercast.ops.paged_attention`."""
    q = with_unit_stride(q)
    # Bound to names: their memory must last through the call.
    block_table, sequence_lengths = block_table.contiguous(), sequence_lengths.contiguous()
    cu_seqlens_q = cu_seqlens_q.contiguous()
    first_positions = None if first_positions is None else first_positions.contiguous()
    T, Hq, D = q.shape
    pages, page_size, Hkv, _ = k_cache.shape
    k_strides, v_strides = _slot_strides(k_cache), _slot_strides(v_cache)
    o = q.new_empty((T, Hq, D))
    stray = csrc.paged_attention(
        q.data_ptr(),
        k_cache.data_ptr(),
        v_cache.data_ptr(),
        STORAGE[k_cache.dtype],
        o.data_ptr(),
        block_table.data_ptr(),
        sequence_lengths.data_ptr(),
        cu_seqlens_q.data_ptr(),
        0 if first_positions is None else first_positions.data_ptr(),
        block_table.shape[0],
        block_table.shape[1],
        pages,
        page_size,
        k_cache.stride(0) // k_strides[1],
        Hq,
        Hkv,
        D,
        (q.stride(1), q.stride(0)),
        k_strides,
        v_strides,
        scale,
        window or 0,
        softcap or 0.0,
        torch.get_num_threads(),
    )
    if stray >= 0:
        row = block_table[stray]
        page = int(row[(row < 0) | (row >= pages)][0])
        raise ValueRangeError(
            f"paged_attention: `block_table` must name pages within 0..{pages - 1}, got {page} for "
            f"sequence {stray}. Entries past a sequence's length are not looked at."
        )
    return o


def _slot_strides(cache: Tensor) -> tuple[int, int]:
    """From a head to the next, and from a slot: with one in a page, from a page."""
    page, slot, head, _ = cache.stride()
    return head, page if cache.shape[1] == 1 else slot
