"""`attention` and `paged_attention` by Triton.

A program takes a tile of query rows of one sequence and one key/value head. With many tiles it
goes through the blocks of keys in order and merges as it goes. With few, blocks are computed by
programs of their own, kept in memory, and merged in order by a second kernel: the same bits.
"""

# A branch on a constant of compilation stands alone: joined with another it would be compiled.
# ruff: noqa: SIM102, SIM108

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from layercast.kernels.rows import with_unit_stride
from layercast.kernels.triton.key_blocks import (
    attend_block,
    block_pages,
    block_scores,
    block_slots,
    finish,
    merge,
    visible_keys,
)
from layercast.kernels.triton.key_order import key_order
from layercast.kernels.triton.launch import OPTIONS
from layercast.kernels.triton.tensors import multiprocessors, rounded
from layercast.numerics import KEY_BLOCK

# Numbers that change from step to step are not specialised, as a kernel would be compiled anew in
# the middle of a generation where one of them becomes 1 or a multiple of 16.

MAX_ROWS = 32
MAX_PARTIAL_ELEMENTS = 2**26
"""Most float32 that blocks computed side by side may keep: 256 MiB."""


@triton.jit
def first_at_least(positions, n, wanted):
    """How many of n ascending positions are below `wanted`, by bisection."""
    low = n * 0
    high = n
    while low < high:
        middle = (low + high) // 2
        if tl.load(positions + middle) < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@triton.jit
def packed_sequence(lengths, starts, firsts, b, Tq, room, HAS_FIRSTS: tl.constexpr):
    """Where a packed sequence's queries begin and how many they are, its length and first position.

    No queries where the numbers do not fit each other or the memory: its rows stay NaN.
    """
    begin = tl.load(starts + b)
    queries = tl.load(starts + b + 1) - begin
    n = tl.load(lengths + b).to(tl.int64)
    first = n * 0
    if HAS_FIRSTS:
        first = tl.load(firsts + b)
    fits = (begin >= 0) & (queries >= 0) & (begin + queries <= Tq)
    fits = fits & (first >= 0) & (queries <= n - first) & (n - first <= room)
    return begin, tl.where(fits, queries, 0), n, first


@triton.jit(do_not_specialize=["Tq", "Tk", "pages", "window", "blocks", "blocks_per_split"])
def attention_kernel(
    q,
    k,
    v,
    y,
    query_positions,
    slots,
    positions,
    table,
    lengths,
    starts,
    firsts,
    twice,
    m_blocks,
    l_blocks,
    o_blocks,
    seen_blocks,
    Tq,
    Tk,
    D,
    Hkv,
    group,
    q_stride_b,
    q_stride_h,
    q_stride_t,
    k_stride_b,
    k_stride_h,
    k_stride_t,
    k_stride_page,
    v_stride_b,
    v_stride_h,
    v_stride_t,
    v_stride_page,
    page_size,
    pages,
    window,
    scale,
    softcap,
    blocks,
    blocks_per_split,
    PAGED: tl.constexpr,
    HAS_FIRSTS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Grid (tiles of rows, sequences x key/value heads, splits)."""
    b = (tl.program_id(1) // Hkv).to(tl.int64)
    h = (tl.program_id(1) % Hkv).to(tl.int64)
    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    t = row // group
    head = h * group + row % group
    if PAGED:
        # The queries of a sequence are its last positions.
        room = tl.cast(page_size, tl.int64) * Tk
        begin, queries, n, first = packed_sequence(lengths, starts, firsts, b, Tq, room, HAS_FIRSTS)
        exists = t < queries
        qp = tl.where(exists, n - queries + t, -1)
        n = n - first
        q_rows = q + (begin + t) * q_stride_t + head * q_stride_h
        out = (begin + t) * (Hkv * group) + head
        sorted_slots, sorted_positions = slots, positions
    else:
        n = tl.load(lengths + b).to(tl.int64)
        first = n * 0
        exists = t < Tq
        qp = tl.load(query_positions + b * Tq + t, mask=exists, other=-1)
        q_rows = q + b * q_stride_b + t.to(tl.int64) * q_stride_t + head * q_stride_h
        out = (b * Tq + t) * (Hkv * group) + head
        sorted_slots, sorted_positions = slots + b * Tk, positions + b * Tk
    q_rows = tl.where(exists, q_rows, q + tl.zeros_like(out))
    lowest = tl.where(qp >= 0, qp - window + 1, 2**62)
    lowest = tl.maximum(tl.min(lowest, 0), 0)
    highest = tl.max(qp, 0)
    # Blocks counted from that of the first key, so that their number is bounded by memory.
    base = first // 64
    alone = False
    if not PAGED:
        if n > 0:
            base = tl.load(sorted_positions) // 64
            alone = tl.load(sorted_positions + n - 1) // 64 - base >= blocks
    low = tl.maximum(base, lowest // 64)
    last = highest // 64
    if SPLIT:
        if PAGED:
            alone = False
        if alone:
            # More blocks than there is memory for, as positions have gaps: one program merges.
            last = tl.where(tl.program_id(2) == 0, last, -1)
        else:
            low = tl.maximum(low, base + tl.program_id(2) * blocks_per_split)
            last = tl.minimum(last, base + (tl.program_id(2) + 1) * blocks_per_split - 1)
            entry = (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64)
            for ordinal in tl.range(0, blocks_per_split):
                slot = entry * blocks + tl.program_id(2) * blocks_per_split + ordinal
                at = slot * BLOCK_R + tl.arange(0, BLOCK_R)
                tl.store(seen_blocks + at, tl.zeros((BLOCK_R,), tl.int32))
            tl.debug_barrier()
    if PAGED:
        i = tl.maximum(low * 64 - first, n * 0)
    else:
        i = first_at_least(sorted_positions, n, low * 64)
    m = tl.full((BLOCK_R,), float("-inf"), tl.float32)
    l = tl.zeros((BLOCK_R,), tl.float32)  # noqa: E741
    o = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    merged = tl.zeros((BLOCK_R,), tl.int32) != 0
    block = last + 1
    if i < n:
        if PAGED:
            block = (first + i) // 64
        else:
            block = tl.load(sorted_positions + i) // 64
    while block <= last:
        visible = visible_keys(qp, block, window, BLOCK_R)
        if PAGED:
            slot, inner, count = block_pages(table + b * Tk, first, i, n, block, page_size, pages)
            k_at = slot * k_stride_page + inner * k_stride_t + h * k_stride_h
            v_at = slot * v_stride_page + inner * v_stride_t + h * v_stride_h
        else:
            slot, count = block_slots(sorted_slots, sorted_positions, i, n, block)
            k_at = b * k_stride_b + slot.to(tl.int64) * k_stride_t + h * k_stride_h
            v_at = b * v_stride_b + slot.to(tl.int64) * v_stride_t + h * v_stride_h
        visible = visible & (slot != -1)[None, :]
        # A key that no row sees is not read.
        present = (slot >= 0) & (tl.max(visible.to(tl.int32), 0) != 0)
        s = block_scores(q_rows, k, k_at, present, D, scale, softcap, HAS_SOFTCAP, BLOCK_R)
        if PAGED:
            s = tl.where((slot == -2)[None, :], float("nan"), s)
        m_b, l_b, o_b = attend_block(s, v, v_at, present, visible, D, BLOCK_R, BLOCK_D)
        seen = tl.max(visible.to(tl.int32), 1) != 0
        if SPLIT and not alone:
            entry = (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64)
            at = (entry * blocks + (block - base)) * BLOCK_R + tl.arange(0, BLOCK_R)
            tl.store(m_blocks + at, m_b)
            tl.store(l_blocks + at, l_b)
            tl.store(seen_blocks + at, seen.to(tl.int32))
            d = tl.arange(0, BLOCK_D)
            tl.store(
                o_blocks + at[:, None] * BLOCK_D + d[None, :],
                o_b,
                mask=seen[:, None] & (d < D)[None, :],
            )
        else:
            m, l, o = merge(m, l, o, m_b, l_b, o_b, seen)  # noqa: E741
            merged = merged | seen
        i += count
        block = last + 1
        if i < n:
            if PAGED:
                block = (first + i) // 64
            else:
                block = tl.load(sorted_positions + i) // 64
    write = True
    if SPLIT:
        write = alone
        if tl.program_id(2) > 0:
            write = False
    if write:
        if not PAGED:
            # A position that occurs twice has no one answer.
            if tl.load(twice + b) != 0:
                l = tl.full((BLOCK_R,), float("nan"), tl.float32)  # noqa: E741
        d = tl.arange(0, BLOCK_D)
        inside = exists[:, None] & (d < D)[None, :]
        finish(l, o, merged, out.to(tl.int64)[:, None] * D + d[None, :], inside, y)


@triton.jit(do_not_specialize=["Tq", "Tk", "blocks"])
def merge_kernel(
    y,
    positions,
    lengths,
    starts,
    firsts,
    twice,
    m_blocks,
    l_blocks,
    o_blocks,
    seen_blocks,
    Tq,
    Tk,
    D,
    Hkv,
    group,
    page_size,
    blocks,
    PAGED: tl.constexpr,
    HAS_FIRSTS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Blocks of one row merged in ascending order; grid (rows, sequences x key/value heads)."""
    b = (tl.program_id(1) // Hkv).to(tl.int64)
    h = (tl.program_id(1) % Hkv).to(tl.int64)
    row = tl.program_id(0)
    t = row // group
    head = h * group + row % group
    write = True
    if PAGED:
        room = tl.cast(page_size, tl.int64) * Tk
        begin, queries, _n, _first = packed_sequence(
            lengths, starts, firsts, b, Tq, room, HAS_FIRSTS
        )
        write = t < queries
        out = (begin + t) * (Hkv * group) + head
    else:
        out = (b * Tq + t) * (Hkv * group) + head
        n = tl.load(lengths + b)
        if n > 0:
            base = tl.load(positions + b * Tk) // 64
            write = tl.load(positions + b * Tk + n - 1) // 64 - base < blocks
    if write:
        one = tl.arange(0, 1)
        d = tl.arange(0, BLOCK_D)
        m = tl.full((1,), float("-inf"), tl.float32)
        l = tl.zeros((1,), tl.float32)  # noqa: E741
        o = tl.zeros((1, BLOCK_D), tl.float32)
        merged = tl.zeros((1,), tl.int32) != 0
        tiles = tl.cdiv(tl.num_programs(0), BLOCK_R)
        entry = (tl.program_id(1) * tiles + row // BLOCK_R).to(tl.int64)
        for ordinal in tl.range(0, blocks):
            at = (entry * blocks + ordinal) * BLOCK_R + row % BLOCK_R + one
            seen = tl.load(seen_blocks + at) != 0
            m_b = tl.load(m_blocks + at, mask=seen, other=0.0)
            l_b = tl.load(l_blocks + at, mask=seen, other=0.0)
            inside = seen[:, None] & (d < D)[None, :]
            o_b = tl.load(o_blocks + at[:, None] * BLOCK_D + d[None, :], mask=inside, other=0.0)
            m, l, o = merge(m, l, o, m_b, l_b, o_b, seen)  # noqa: E741
            merged = merged | seen
        if not PAGED:
            if tl.load(twice + b) != 0:
                l = tl.full((1,), float("nan"), tl.float32)  # noqa: E741
        at = (out + one.to(tl.int64))[:, None] * D + d[None, :]
        finish(l, o, merged, at, (d < D)[None, :] & (one == 0)[:, None], y)


def attention_tile(rows: int, D: int) -> dict[str, int]:
    """Tile for so many rows of a head: so large that few keys are read twice, so small that the
    registers of its warps hold it (by what ptxas reports of spills for sm_80 and sm_90).
    """
    BLOCK_D = max(16, triton.next_power_of_2(D))
    BLOCK_R = min(MAX_ROWS if BLOCK_D <= 128 else 16, triton.next_power_of_2(max(rows, 1)))
    num_warps = 8 if BLOCK_D >= 128 or BLOCK_R == MAX_ROWS else 4
    return {"BLOCK_R": BLOCK_R, "BLOCK_D": BLOCK_D, "num_warps": num_warps}


def _attend(
    q: Tensor,
    y: Tensor,
    sizes: tuple[int, int, int, int, int, int],
    pointers: dict[str, Tensor],
    integers: dict[str, int],
    scale: float,
    window: int | None,
    softcap: float | None,
    paged: bool,
    has_firsts: bool,
) -> None:
    """Launch one kernel, or two where the blocks of a row are to be computed side by side."""
    B, Hkv, group, rows, D, blocks = sizes
    tile = attention_tile(rows, D)
    num_warps = tile.pop("num_warps")
    BLOCK_R, BLOCK_D = tile["BLOCK_R"], tile["BLOCK_D"]
    tiles = triton.cdiv(rows, BLOCK_R)
    programs = tiles * B * Hkv
    wanted = 4 * multiprocessors(q.device)
    fits = programs * blocks * BLOCK_R * BLOCK_D <= MAX_PARTIAL_ELEMENTS
    splits = min(blocks, max(1, wanted // programs)) if fits else 1
    per_split = triton.cdiv(blocks, splits)
    splits = triton.cdiv(blocks, per_split)
    split = splits > 1
    entries = programs * splits * per_split * BLOCK_R if split else 0
    partial = {
        "m_blocks": q.new_empty(entries),
        "l_blocks": q.new_empty(entries),
        "o_blocks": q.new_empty(entries * BLOCK_D),
        "seen_blocks": torch.empty(entries, dtype=torch.int32, device=q.device),
    }
    shared = {"D": D, "Hkv": Hkv, "group": group, "blocks": splits * per_split}
    tile["PAGED"] = paged
    attention_kernel[(tiles, B * Hkv, splits)](
        q=q,
        y=y,
        **pointers,
        **partial,
        **integers,
        **shared,
        window=2**62 if window is None else window,
        scale=rounded(scale),
        softcap=rounded(softcap or 1.0),
        blocks_per_split=per_split,
        HAS_FIRSTS=has_firsts,
        HAS_SOFTCAP=softcap is not None,
        SPLIT=split,
        **tile,
        num_warps=num_warps,
        **OPTIONS,
    )
    if split:
        names = ("positions", "lengths", "starts", "firsts", "twice")
        merge_kernel[(rows, B * Hkv)](
            y=y,
            **{name: pointers[name] for name in names},
            **partial,
            Tq=integers["Tq"],
            Tk=integers["Tk"],
            page_size=integers["page_size"],
            HAS_FIRSTS=has_firsts,
            **shared,
            **tile,
            **OPTIONS,
        )


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
    """See `layercast.ops.attention`. A sequence with a position twice is NaN."""
    q, k, v = with_unit_stride(q), with_unit_stride(k), with_unit_stride(v)
    query_positions = query_positions.contiguous()
    B, Hq, Tq, D = q.shape
    Hkv, Tk = k.shape[1], k.shape[2]
    y = q.new_empty((B, Tq, Hq, D))
    if y.numel() == 0:
        return y
    slots, positions, counts, twice = key_order(key_positions)
    pointers = {
        "k": k,
        "v": v,
        "query_positions": query_positions,
        "slots": slots,
        "positions": positions,
        "table": positions,
        "lengths": counts,
        "starts": positions,
        "firsts": positions,
        "twice": twice,
    }
    integers = {"Tq": Tq, "Tk": Tk, "page_size": 1, "pages": 1}
    for name, x in (("q", q), ("k", k), ("v", v)):
        stride_b, stride_h, stride_t, _ = x.stride()
        integers |= {
            f"{name}_stride_b": stride_b,
            f"{name}_stride_h": stride_h,
            f"{name}_stride_t": stride_t,
        }
    integers |= {"k_stride_page": 0, "v_stride_page": 0}
    sizes = (B, Hkv, Hq // Hkv, Tq * (Hq // Hkv), D, Tk // KEY_BLOCK + 2)
    _attend(q, y, sizes, pointers, integers, scale, window, softcap, False, False)
    return y


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
    max_queries: int | None = None,
) -> Tensor:
    """See `layercast.ops.paged_attention`. What no program writes, as it does not fit, is NaN."""
    q = with_unit_stride(q)
    T, Hq, D = q.shape
    pages, page_size, Hkv, _ = k_cache.shape
    B, columns = block_table.shape
    y = q.new_full((T, Hq, D), float("nan"))
    if y.numel() == 0 or B == 0:
        return y
    lengths, starts = sequence_lengths.contiguous(), cu_seqlens_q.contiguous()
    pointers = {
        "k": k_cache,
        "v": v_cache,
        "query_positions": starts,
        "slots": starts,
        "positions": starts,
        "table": block_table.contiguous(),
        "lengths": lengths,
        "starts": starts,
        "firsts": starts if first_positions is None else first_positions.contiguous(),
        "twice": starts,
    }
    integers = {"Tq": T, "Tk": columns, "page_size": page_size, "pages": pages}
    integers |= {"q_stride_b": 0, "q_stride_h": q.stride(1), "q_stride_t": q.stride(0)}
    for name, cache in (("k", k_cache), ("v", v_cache)):
        page, slot, head, _ = cache.stride()
        integers |= {
            f"{name}_stride_b": 0,
            f"{name}_stride_h": head,
            f"{name}_stride_t": slot,
            f"{name}_stride_page": page,
        }
    group = Hq // Hkv
    # One sequence may hold every query: another may bring none.
    queries = T if max_queries is None else min(T, max_queries)
    sizes = (B, Hkv, group, queries * group, D, triton.cdiv(columns * page_size, KEY_BLOCK) + 1)
    has_firsts = first_positions is not None
    _attend(q, y, sizes, pointers, integers, scale, window, softcap, True, has_firsts)
    return y
