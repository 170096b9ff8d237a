"""`softmax` and `log_softmax` by the C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from layercast.kernels.cpu.isa import csrc
from layercast.kernels.rows import rows_of


def softmax(x: Tensor) -> Tensor:
    """See `layercast.ops.softmax`."""
    x = x.contiguous()
    y = torch.empty_like(x)
    csrc.softmax(x.data_ptr(), y.data_ptr(), rows_of(x), x.shape[-1], torch.get_num_threads())
    return y


def log_softmax(x: Tensor) -> Tensor:
    """See `layercast.ops.log_softmax`."""
    x = x.contiguous()
    y = torch.empty_like(x)
    csrc.log_softmax(x.data_ptr(), y.data_ptr(), rows_of(x), x.shape[-1], torch.get_num_threads())
    return y
