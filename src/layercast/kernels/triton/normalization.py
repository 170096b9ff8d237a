"""`rms_norm` and `layer_norm` by Triton: a program a row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from layercast.kernels.rows import rows_of
from layercast.kernels.triton import contract
from layercast.kernels.triton.launch import OPTIONS
from layercast.kernels.triton.reduction import SQUARE, SUM, row_sum
from layercast.kernels.triton.tensors import rounded

BLOCK = 1024


@triton.jit
def reciprocal_root(total, n, eps):
    """1 / sqrt(total / n + eps), each step rounded."""
    mean = tl.div_rn(total, tl.cast(n, tl.float32))
    return tl.div_rn(1.0, tl.sqrt_rn(mean + eps))


@triton.jit
def rms_norm_kernel(x, weight, y, n, eps, UNIT_OFFSET: tl.constexpr, BLOCK: tl.constexpr):
    """Y = (x * r) * w, r = 1 / sqrt(dot(x, x) / n + eps)."""
    row = tl.program_id(0).to(tl.int64)
    r = reciprocal_root(row_sum(x + row * n, x, n, 0.0, SQUARE), n, eps)
    for start in tl.range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        w = contract.upcast(tl.load(weight + at, mask=at < n, other=0.0))
        if UNIT_OFFSET:
            w = 1.0 + w
        value = (tl.load(x + row * n + at, mask=at < n, other=0.0) * r) * w
        tl.store(y + row * n + at, contract.canonical(value), mask=at < n)


@triton.jit
def layer_norm_kernel(
    x,
    weight,
    bias,
    y,
    n,
    eps,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Y = ((d * r) * w) + b, d = x - dot(x, 1) / n, r = 1 / sqrt(dot(d, d) / n + eps)."""
    row = tl.program_id(0).to(tl.int64)
    mean = tl.div_rn(row_sum(x + row * n, x, n, 0.0, SUM), tl.cast(n, tl.float32))
    r = reciprocal_root(row_sum(x + row * n, x, n, mean, SQUARE), n, eps)
    for start in tl.range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = (tl.load(x + row * n + at, mask=at < n, other=0.0) - mean) * r
        if HAS_WEIGHT:
            value = value * contract.upcast(tl.load(weight + at, mask=at < n, other=0.0))
        if HAS_BIAS:
            value = value + contract.upcast(tl.load(bias + at, mask=at < n, other=0.0))
        tl.store(y + row * n + at, contract.canonical(value), mask=at < n)


def rms_norm(x: Tensor, weight: Tensor, eps: float, unit_offset: bool) -> Tensor:
    """See `layercast.ops.rms_norm`."""
    x, weight = x.contiguous(), weight.contiguous()
    y = torch.empty_like(x)
    if x.numel():
        rms_norm_kernel[(rows_of(x),)](
            x, weight, y, x.shape[-1], rounded(eps), unit_offset, BLOCK, **OPTIONS
        )
    return y


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """See `layercast.ops.layer_norm`."""
    x = x.contiguous()
    y = torch.empty_like(x)
    if x.numel():
        layer_norm_kernel[(rows_of(x),)](
            x,
            x if weight is None else weight.contiguous(),
            x if bias is None else bias.contiguous(),
            y,
            x.shape[-1],
            rounded(eps),
            weight is not None,
            bias is not None,
            BLOCK,
            **OPTIONS,
        )
    return y
