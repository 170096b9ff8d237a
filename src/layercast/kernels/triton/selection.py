"""`argmax` and `topk` by Triton: elements become integer keys, all distinct, whose order is that
of the values and then of the lower index. What torch selects among distinct integers is the same
by any algorithm.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from layercast.kernels.rows import rows_of
from layercast.kernels.triton import contract
from layercast.kernels.triton.launch import OPTIONS

BLOCK = 1024
ARGMAX_BLOCK = 4096


@triton.jit
def order_keys(x, index):
    """int64 keys: a larger one comes first. NaN above everything, -0 and +0 equal."""
    bits = contract.bits_of(x)
    bits = tl.where(bits == -2147483648, 0, bits)
    # Negative floats descend as their bits ascend: as a signed integer, turn all but the sign.
    rank = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    rank = tl.where(contract.is_nan(x), 0x7FFFFFFF, rank)
    return (rank.to(tl.int64) << 32) | (0x7FFFFFFF - index).to(tl.int64)


@triton.jit
def order_keys_kernel(x, keys, n, BLOCK: tl.constexpr):
    """keys[row, i] of x[row, i]; grid (tiles, rows)."""
    row = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + row * n + at, mask=at < n, other=0.0)
    tl.store(keys + row * n + at, order_keys(value, at), mask=at < n)


@triton.jit
def argmax_kernel(x, y, n, BLOCK: tl.constexpr):
    """y[row] = index of the largest key."""
    row = tl.program_id(0).to(tl.int64)
    best = tl.full((BLOCK,), -(2**63), tl.int64)
    for start in tl.range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * n + at, mask=at < n, other=0.0)
        best = tl.where(at < n, tl.maximum(best, order_keys(value, at)), best)
    tl.store(y + row, 0x7FFFFFFF - (tl.max(best, 0) & 0xFFFFFFFF))


@triton.jit
def take_kernel(x, keys, values, indices, n, k, count, BLOCK: tl.constexpr):
    """Elements and indices of chosen keys, in their order."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    index = 0x7FFFFFFF - (tl.load(keys + at, mask=inside, other=0x7FFFFFFF) & 0xFFFFFFFF)
    value = tl.load(x + at // k * n + index, mask=inside, other=0.0)
    tl.store(values + at, contract.canonical(value), mask=inside)
    tl.store(indices + at, index, mask=inside)


def keys_of(x: Tensor) -> Tensor:
    """Integer keys of the rows of contiguous `x`, shape (rows, n)."""
    rows, n = rows_of(x), x.shape[-1]
    keys = torch.empty((rows, n), dtype=torch.int64, device=x.device)
    order_keys_kernel[(triton.cdiv(n, BLOCK), rows)](x, keys, n, BLOCK, **OPTIONS)
    return keys


def argmax(x: Tensor) -> Tensor:
    """See `layercast.ops.argmax`."""
    x = x.contiguous()
    y = torch.empty(x.shape[:-1], dtype=torch.int64, device=x.device)
    if y.numel():
        argmax_kernel[(y.numel(),)](x, y, x.shape[-1], ARGMAX_BLOCK, num_warps=8, **OPTIONS)
    return y


def topk(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """See `layercast.ops.topk`."""
    x = x.contiguous()
    values = torch.empty((*x.shape[:-1], k), dtype=x.dtype, device=x.device)
    indices = torch.empty((*x.shape[:-1], k), dtype=torch.int64, device=x.device)
    count = values.numel()
    if count:
        keys = torch.topk(keys_of(x), k, dim=-1, sorted=True).values
        take_kernel[(triton.cdiv(count, BLOCK),)](
            x, keys, values, indices, x.shape[-1], k, count, BLOCK, **OPTIONS
        )
    return values, indices
