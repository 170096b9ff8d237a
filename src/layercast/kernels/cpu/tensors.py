"""What the kernels are told of a tensor: storage codes and rows."""

from __future__ import annotations

import torch
from torch import Tensor

STORAGE = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def rows_of(x: Tensor) -> int:
    """Number of rows of `x`, its last axis being a row; right for empty rows too."""
    rows = 1
    for size in x.shape[:-1]:
        rows *= size
    return rows


def with_unit_stride(x: Tensor) -> Tensor:
    """`x` itself where its last axis is contiguous in memory, else a contiguous copy."""
    return x if x.stride(-1) == 1 else x.contiguous()
