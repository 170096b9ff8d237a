"""What the kernels are told of a tensor: storage codes and rows."""

from __future__ import annotations

import torch
from torch import Tensor

STORAGE = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def as_rows(x: Tensor) -> tuple[Tensor, int]:
    """`x` and how far apart its rows lie, in elements; a contiguous copy where that varies."""
    if x.is_contiguous():
        return x, x.shape[-1]
    shape, strides = x.shape, x.stride()
    if strides[-1] == 1:
        # Rows are evenly spaced where each axis steps over the whole of the next one.
        for axis in range(len(shape) - 2):
            if shape[axis] != 1 and strides[axis] != strides[axis + 1] * shape[axis + 1]:
                break
        else:
            return x, strides[-2]
    return x.contiguous(), shape[-1]
