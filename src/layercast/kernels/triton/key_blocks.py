"""One block of 64 key positions: its keys, its softmax, and the merge of blocks in order."""

from __future__ import annotations

import triton
import triton.language as tl

from layercast.kernels.triton import contract

SLICE = tl.constexpr(16)
"""Channels of the score's chain that are loaded at a time."""


@triton.jit
def block_slots(slots, positions, i, n, block):
    """Slot of each of the 64 positions of a block, -1 where there is none, and how many there are.

    `i` is the first of the block's keys in ascending order.
    """
    c = tl.arange(0, 64)
    r = i + c
    position = tl.load(positions + r, mask=r < n, other=-64)
    inside = position // 64 == block
    place = (position % 64).to(tl.int32)
    found = tl.load(slots + r, mask=r < n, other=0)
    match = inside[:, None] & (place[:, None] == c[None, :])
    # At most one of a column matches: a sum of integers, whatever its order.
    slot = tl.sum(tl.where(match, found[:, None] + 1, 0), 0) - 1
    return slot, tl.sum(inside.to(tl.int32), 0)


@triton.jit
def block_pages(table, first, i, n, block, page_size, pages):
    """Page of each of the 64 positions of a block and the place in it, and how many there are.

    In pages, key i has position first + i. The page is -1 where there is no key, and -2 where the
    table names one that does not exist.
    """
    held = (block * 64 - first).to(tl.int32) + tl.arange(0, 64)
    present = (held >= i) & (held < n)
    column = held // page_size
    page = tl.load(table + tl.where(present, column, 0), mask=present, other=-1)
    page = tl.where(present & ((page < 0) | (page >= pages)), -2, page)
    return page, held - column * page_size, tl.sum(present.to(tl.int32), 0)


@triton.jit
def visible_keys(qp, block, window, BLOCK_R: tl.constexpr):
    """Which of a block's 64 positions each row's query sees, shape (BLOCK_R, 64)."""
    c = tl.arange(0, 64)[None, :]
    # Within the block, so that 32 bits do: the last position seen, and the one before the first.
    last = tl.minimum(qp - block * 64, 64).to(tl.int32)
    before = tl.maximum(tl.minimum(qp - block * 64 - window, 64), -1).to(tl.int32)
    return (c <= last[:, None]) & (c > before[:, None])


@triton.jit
def block_scores(
    q_rows, k, offsets, present, D, scale, softcap, HAS_SOFTCAP: tl.constexpr, BLOCK_R: tl.constexpr
):
    """One chain over head_dim for each row and slot, the scale, the softcap."""
    s = tl.zeros((BLOCK_R, 64), tl.float32)
    for start in tl.range(0, D, SLICE, num_stages=2):
        d = tl.arange(0, SLICE) + start
        a = tl.load(q_rows[:, None] + d[None, :], mask=(d < D)[None, :], other=0.0)
        inside = present[None, :] & (d < D)[:, None]
        b = contract.upcast(tl.load(k + offsets[None, :] + d[:, None], mask=inside, other=0.0))
        s = tl.dot(a, b, acc=s, input_precision="ieee")
    s = s * scale
    if HAS_SOFTCAP:
        s = softcap * contract.tanh(tl.div_rn(s, tl.zeros((BLOCK_R, 64), tl.float32) + softcap))
    return s


@triton.jit
def chain_of_rows(p, v, offsets, visible, D, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    """`tl.dot(p, v)` where a hidden value is NaN or infinite: each row takes its own as +0."""
    c = tl.arange(0, 64)
    d = tl.arange(0, BLOCK_D)
    o = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    for j in tl.range(0, 64, num_stages=1):
        at = tl.sum(tl.where(c == j, offsets, 0), 0)
        here = visible & (c == j)[None, :]
        seen = tl.sum(here.to(tl.int32), 1) != 0
        # One element of a row is not zero: its bits, whatever the order of the sum.
        share = contract.float_of(tl.sum(tl.where(here, contract.bits_of(p), 0), 1))
        used = (d < D) & (tl.max(seen.to(tl.int32), 0) + tl.zeros_like(d) != 0)
        value = contract.upcast(tl.load(v + at + d, mask=used, other=0.0))
        value = tl.where(seen[:, None], value[None, :], 0.0)
        o = tl.fma(tl.where(seen, share, 0.0)[:, None] + tl.zeros_like(value), value, o)
    return o


@triton.jit
def attend_block(s, v, offsets, present, visible, D, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    """Maximum, sum and weighted values of a block; all 64 slots take part, hidden ones as zeros."""
    masked = tl.where(visible, s, float("-inf"))
    spoilt = tl.max((contract.is_nan(s) & visible).to(tl.int32), 1) != 0
    largest = tl.max(tl.where(contract.is_nan(masked), float("-inf"), masked), 1)
    m = contract.float_of(tl.where(spoilt, contract.NAN_BITS, contract.bits_of(largest)))
    p = tl.where(visible, contract.exp(s - m[:, None]), 0.0)
    # A product with ones: the chain fma(p, 1, .) adds the p in order.
    l = tl.dot(p, tl.full((64, 1), 1.0, tl.float32), input_precision="ieee")  # noqa: E741
    d = tl.arange(0, BLOCK_D)
    inside = present[:, None] & (d < D)[None, :]
    value = contract.upcast(tl.load(v + offsets[:, None] + d[None, :], mask=inside, other=0.0))
    finite = (contract.bits_of(value) & contract.MAGNITUDE_BITS) < contract.INFINITY_BITS
    alike = visible | (present == 0)[None, :]
    if (tl.min(finite.to(tl.int32)) == 1) | (tl.min(alike.to(tl.int32)) == 1):
        o = tl.dot(p, value, input_precision="ieee")
    else:
        o = chain_of_rows(p, v, offsets, visible, D, BLOCK_R, BLOCK_D)
    # Hidden slots after the visible ones: fma(+0, +0, o) over and over, one addition of +0.
    last = tl.sum((visible & (tl.arange(0, 64) == 63)[None, :]).to(tl.int32), 1) != 0
    o = tl.where(last[:, None], o, o + 0.0)
    return m, tl.reshape(l, (BLOCK_R,)), o


@triton.jit
def merge(m, l, o, m_b, l_b, o_b, seen):  # noqa: E741
    """Block (m_b, l_b, o_b) merged into (m, l, o), in rows that see some of it."""
    m_next = contract.maximum(m, m_b)
    a = contract.exp(m - m_next)
    b = contract.exp(m_b - m_next)
    l_next = tl.fma(l, a, l_b * b)
    o_next = tl.fma(o, a[:, None] + tl.zeros_like(o), o_b * b[:, None])
    return (
        tl.where(seen, m_next, m),
        tl.where(seen, l_next, l),
        tl.where(seen[:, None], o_next, o),
    )


@triton.jit
def finish(l, o, merged, at, inside, y):  # noqa: E741
    """O / l, and +0 in rows that saw no key."""
    value = contract.canonical(tl.div_rn(o, l[:, None] + tl.zeros_like(o)))
    tl.store(y + at, tl.where(merged[:, None], value, 0.0), mask=inside)
