"""`argmax` and `topk` by the C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from layercast.kernels.cpu.isa import csrc
from layercast.kernels.rows import rows_of


def argmax(x: Tensor) -> Tensor:
    """See `layercast.ops.argmax`."""
    x = x.contiguous()
    y = x.new_empty(x.shape[:-1], dtype=torch.int64)
    csrc.argmax(x.data_ptr(), y.data_ptr(), rows_of(x), x.shape[-1], torch.get_num_threads())
    return y


def topk(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """See `layercast.ops.topk`."""
    x = x.contiguous()
    values = x.new_empty((*x.shape[:-1], k))
    indices = x.new_empty((*x.shape[:-1], k), dtype=torch.int64)
    csrc.topk(
        x.data_ptr(),
        values.data_ptr(),
        indices.data_ptr(),
        rows_of(x),
        x.shape[-1],
        k,
        torch.get_num_threads(),
    )
    return values, indices
