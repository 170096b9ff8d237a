"""The contract's reduction of a row, and `dot` by it.

The chains of a row's chunks run side by side, one a lane; the chunks of a shard are then added in
order by a matrix product with ones, whose chain `fma(chunk, 1, .)` is exactly that sum.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from layercast.kernels.rows import rows_of
from layercast.kernels.triton import contract
from layercast.kernels.triton.launch import OPTIONS

GROUP = tl.constexpr(16)
"""Chunks of each shard whose chains run side by side."""

PRODUCT = tl.constexpr(0)  # x * w
SQUARE = tl.constexpr(1)  # (x - offset) ** 2
SUM = tl.constexpr(2)  # x
EXP_SUM = tl.constexpr(3)  # exp(x - offset)


@triton.jit
def group_count(n):
    """Groups of chunks in the longest shard of n elements."""
    return tl.cdiv(tl.cdiv(n, 8), 64 * GROUP)


@triton.jit
def chunk_sums(x, w, n, offset, group, TERM: tl.constexpr):
    """Sums of 16 chunks of each shard, shape (8, 16), each one chain; +0 past a shard's end."""
    shard = tl.arange(0, 8)[:, None].to(tl.int64)
    start = (shard * n // 8).to(tl.int32) + (tl.arange(0, GROUP) + group * GROUP)[None, :] * 64
    end = ((shard + 1) * n // 8).to(tl.int32)
    acc = tl.zeros((8, GROUP), tl.float32)
    for k in tl.range(0, 64, loop_unroll_factor=8):
        at = start + k
        inside = at < end
        value = tl.load(x + at, mask=inside, other=0.0)
        if TERM == PRODUCT:
            acc = tl.fma(value, tl.load(w + at, mask=inside, other=0.0), acc)
        elif TERM == SQUARE:
            value = tl.where(inside, value - offset, 0.0)
            acc = tl.fma(value, value, acc)
        elif TERM == SUM:
            acc = acc + value
        else:
            acc = acc + tl.where(inside, contract.exp(value - offset), 0.0)
    return acc


@triton.jit
def add_in_order(shards, chunks):
    """Shard sums (8, 1) plus those of their next 16 chunks (8, 16), one after another."""
    ones = tl.full((GROUP, 1), 1.0, tl.float32)
    return tl.dot(chunks, ones, acc=shards, input_precision="ieee")


@triton.jit
def join(shards):
    """((s0+s1)+(s2+s3)) + ((s4+s5)+(s6+s7)), a scalar."""
    left, right = tl.split(tl.reshape(shards, (4, 2)))
    left, right = tl.split(tl.reshape(left + right, (2, 2)))
    left, right = tl.split(left + right)
    return left + right


@triton.jit
def row_sum(x, w, n, offset, TERM: tl.constexpr):
    """The contract's reduction of one row, of the terms named."""
    shards = tl.zeros((8, 1), tl.float32)
    for group in tl.range(0, group_count(n), num_stages=1):
        shards = add_in_order(shards, chunk_sums(x, w, n, offset, group, TERM))
    return join(shards)


@triton.jit
def dot_kernel(x, w, y, n, stride_w):
    """y[row] = dot(x[row], w[row])."""
    row = tl.program_id(0).to(tl.int64)
    total = row_sum(x + row * n, w + row * stride_w, n, 0.0, PRODUCT)
    tl.store(y + row, contract.canonical(total))


def dot(x: Tensor, w: Tensor) -> Tensor:
    """See `layercast.ops.dot`."""
    x, w = x.contiguous(), w.contiguous()
    y = x.new_empty(x.shape[:-1])
    n = x.shape[-1]
    if y.numel():
        stride_w = n if w.dim() == x.dim() and w.dim() > 1 else 0
        dot_kernel[(rows_of(x),)](x, w, y, n, stride_w, **OPTIONS)
    return y
