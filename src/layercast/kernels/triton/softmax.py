"""`softmax` and `log_softmax` by Triton: maxima, chunk sums in parallel, then the rest by tiles."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from layercast.kernels.rows import rows_of
from layercast.kernels.triton import contract
from layercast.kernels.triton.launch import OPTIONS
from layercast.kernels.triton.reduction import EXP_SUM, GROUP, add_in_order, chunk_sums, join
from layercast.numerics import CHUNK, SHARDS

MAXIMUM_BLOCK = 4096
BLOCK = 1024


@triton.jit
def row_maximum(x, n, BLOCK: tl.constexpr):
    """The largest element, NaN where there is one. A maximum is the same in any order."""
    largest = tl.full((BLOCK,), float("-inf"), tl.float32)
    spoilt = tl.zeros((BLOCK,), tl.int32)
    for start in tl.range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = tl.load(x + at, mask=at < n, other=float("-inf"))
        spoilt = spoilt | contract.is_nan(value).to(tl.int32)
        largest = tl.where(value > largest, value, largest)
    found = contract.bits_of(tl.max(largest, 0))
    return contract.float_of(tl.where(tl.max(spoilt, 0) != 0, contract.NAN_BITS, found))


@triton.jit
def row_maximum_kernel(x, maxima, n, BLOCK: tl.constexpr):
    """maxima[row] = the largest of x[row]."""
    row = tl.program_id(0).to(tl.int64)
    tl.store(maxima + row, row_maximum(x + row * n, n, BLOCK))


@triton.jit
def exp_sums_kernel(x, maxima, sums, n):
    """sums[row, shard, chunk] = chain of exp(x - m) over a chunk; grid (groups, rows)."""
    group = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64)
    value = chunk_sums(x + row * n, x, n, tl.load(maxima + row), group, EXP_SUM)
    chunks = tl.num_programs(0) * GROUP
    at = tl.arange(0, 8)[:, None] * chunks + (tl.arange(0, GROUP) + group * GROUP)[None, :]
    tl.store(sums + row * 8 * chunks + at, value)


@triton.jit
def softmax_kernel(x, maxima, sums, y, n, groups, LOG: tl.constexpr, BLOCK: tl.constexpr):
    """One tile of a row, the sum joined from its chunks; grid (tiles, rows)."""
    row = tl.program_id(1).to(tl.int64)
    shards = tl.zeros((8, 1), tl.float32)
    for group in tl.range(0, groups):
        chunk = tl.arange(0, GROUP) + group * GROUP
        at = tl.arange(0, 8)[:, None] * (groups * GROUP) + chunk[None, :]
        shards = add_in_order(shards, tl.load(sums + row * 8 * groups * GROUP + at))
    total = join(shards)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    shifted = tl.load(x + row * n + at, mask=at < n, other=0.0) - tl.load(maxima + row)
    if LOG:
        value = shifted - contract.log(tl.zeros((BLOCK,), tl.float32) + total)
    else:
        value = tl.div_rn(contract.exp(shifted), tl.zeros((BLOCK,), tl.float32) + total)
    tl.store(y + row * n + at, contract.canonical(value), mask=at < n)


def _run(x: Tensor, log: bool) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    rows, n = rows_of(x), x.shape[-1]
    if y.numel() == 0:
        return y
    groups = triton.cdiv(triton.cdiv(n, SHARDS), CHUNK * GROUP.value)
    maxima = x.new_empty(rows)
    sums = x.new_empty((rows, SHARDS, groups * GROUP.value))
    row_maximum_kernel[(rows,)](x, maxima, n, MAXIMUM_BLOCK, num_warps=8, **OPTIONS)
    exp_sums_kernel[(groups, rows)](x, maxima, sums, n, **OPTIONS)
    softmax_kernel[(triton.cdiv(n, BLOCK), rows)](
        x, maxima, sums, y, n, groups, log, BLOCK, **OPTIONS
    )
    return y


def softmax(x: Tensor) -> Tensor:
    """See `layercast.ops.softmax`."""
    return _run(x, log=False)


def log_softmax(x: Tensor) -> Tensor:
    """See `layercast.ops.log_softmax`."""
    return _run(x, log=True)
