"""What every backend reads off a tensor's shape and strides."""

from __future__ import annotations

from torch import Tensor


def rows_of(x: Tensor) -> int:
    """Number of rows of `x`, its last axis being a row; right for empty rows too."""
    n = x.shape[-1]
    if n:
        return x.numel() // n
    rows = 1
    for size in x.shape[:-1]:
        rows *= size
    return rows


def with_unit_stride(x: Tensor) -> Tensor:
    """`x` itself where its last axis is contiguous in memory, else a contiguous copy."""
    return x if x.stride(-1) == 1 else x.contiguous()
