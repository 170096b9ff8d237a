"""`rms_norm` and `layer_norm` by the C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from layercast.kernels.cpu.isa import csrc
from layercast.kernels.cpu.tensors import STORAGE
from layercast.kernels.rows import rows_of


def rms_norm(x: Tensor, weight: Tensor, eps: float, unit_offset: bool) -> Tensor:
    """See `layercast.ops.rms_norm`."""
    x = x.contiguous()
    weight = weight.contiguous()
    y = torch.empty_like(x)
    csrc.rms_norm(
        x.data_ptr(),
        weight.data_ptr(),
        STORAGE[weight.dtype],
        y.data_ptr(),
        rows_of(x),
        x.shape[-1],
        eps,
        unit_offset,
        torch.get_num_threads(),
    )
    return y


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """See `layercast.ops.layer_norm`."""
    x = x.contiguous()
    y = torch.empty_like(x)
    addresses = []
    # The contiguous tensors are held until the call returns.
    held = [None if t is None else t.contiguous() for t in (weight, bias)]
    for tensor in held:
        addresses += [0, 0] if tensor is None else [tensor.data_ptr(), STORAGE[tensor.dtype]]
    csrc.layer_norm(
        x.data_ptr(),
        *addresses,
        y.data_ptr(),
        rows_of(x),
        x.shape[-1],
        eps,
        torch.get_num_threads(),
    )
    return y
