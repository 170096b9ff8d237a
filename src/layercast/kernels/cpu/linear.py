"""`linear` by the C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from layercast.kernels.cpu.isa import csrc
from layercast.kernels.cpu.tensors import STORAGE, rows_of, with_unit_stride


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See `layercast.ops.linear`."""
    x = x.contiguous()
    weight = with_unit_stride(weight)
    N, K = weight.shape
    M = rows_of(x)
    y = torch.empty((*x.shape[:-1], N), dtype=torch.float32)
    bias_address = bias_storage = 0
    if bias is not None:
        bias = bias.contiguous()
        bias_address, bias_storage = bias.data_ptr(), STORAGE[bias.dtype]
    csrc.linear(
        x.data_ptr(),
        K,
        weight.data_ptr(),
        weight.stride(0),
        STORAGE[weight.dtype],
        bias_address,
        bias_storage,
        y.data_ptr(),
        M,
        N,
        K,
        torch.get_num_threads(),
    )
    return y
