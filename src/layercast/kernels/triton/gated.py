"""Gated activations by Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from layercast.kernels.rows import rows_of
from layercast.kernels.triton import contract
from layercast.kernels.triton.activation import apply
from layercast.kernels.triton.launch import OPTIONS

BLOCK = 1024


@triton.jit
def gated_kernel(
    gate, up, y, rows, n, stride_gate, stride_up, FUNCTION: tl.constexpr, BLOCK: tl.constexpr
):
    """Y = FUNCTION(gate) * up, each rounded; rows of either may lie apart."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < tl.cast(rows, tl.int64) * n
    row, column = at // n, at % n
    left = tl.load(gate + row * stride_gate + column, mask=inside, other=0.0)
    right = tl.load(up + row * stride_up + column, mask=inside, other=0.0)
    tl.store(y + at, contract.canonical(apply(FUNCTION, left) * right), mask=inside)


def _as_rows(x: Tensor) -> tuple[Tensor, int]:
    """`x` in two axes and how far apart its rows lie; a copy where that varies."""
    if x.dim() == 2 and x.stride(1) == 1:
        return x, x.stride(0)
    return x.contiguous(), x.shape[-1]


def _apply(function: str, gate: Tensor, up: Tensor | None) -> Tensor:
    shape = gate.shape
    if up is None:
        n = shape[-1] // 2
        whole, stride_gate = _as_rows(gate)
        left, right, stride_up = whole, whole[..., n:], stride_gate
    else:
        n = shape[-1]
        left, stride_gate = _as_rows(gate)
        right, stride_up = _as_rows(up)
    y = torch.empty((*shape[:-1], n), dtype=gate.dtype, device=gate.device)
    if y.numel():
        gated_kernel[(triton.cdiv(y.numel(), BLOCK),)](
            left, right, y, rows_of(gate), n, stride_gate, stride_up, function, BLOCK, **OPTIONS
        )
    return y


def silu_mul(gate: Tensor, up: Tensor | None) -> Tensor:
    """See `layercast.ops.silu_mul`."""
    return _apply("silu", gate, up)


def gelu_mul(gate: Tensor, up: Tensor | None) -> Tensor:
    """See `layercast.ops.gelu_mul`."""
    return _apply("gelu", gate, up)


def gelu_tanh_mul(gate: Tensor, up: Tensor | None) -> Tensor:
    """See `layercast.ops.gelu_tanh_mul`."""
    return _apply("gelu_tanh", gate, up)
