"""Gated activations by the C++ kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from layercast.kernels.cpu.isa import csrc
from layercast.kernels.cpu.tensors import as_rows

_FLOAT32_BYTES = 4


def _apply(kernel: Callable[..., None], gate: Tensor, up: Tensor | None) -> Tensor:
    gate, ld_gate = as_rows(gate)
    gate_address = gate.data_ptr()
    if up is None:
        # One tensor holds both: the second half of each row is `up`.
        n = gate.shape[-1] // 2
        y = gate.new_empty((*gate.shape[:-1], n))
        ld_up, up_address = ld_gate, gate_address + _FLOAT32_BYTES * n
    else:
        up, ld_up = as_rows(up)
        n, up_address = up.shape[-1], up.data_ptr()
        y = torch.empty_like(gate, memory_format=torch.contiguous_format)
    rows = y.numel() // n if n else 0
    kernel(gate_address, ld_gate, up_address, ld_up, y.data_ptr(), rows, n, torch.get_num_threads())
    return y


def silu_mul(gate: Tensor, up: Tensor | None) -> Tensor:
    """See `layercast.ops.silu_mul`."""
    return _apply(csrc.silu_mul, gate, up)


def gelu_mul(gate: Tensor, up: Tensor | None) -> Tensor:
    """See `layercast.ops.gelu_mul`."""
    return _apply(csrc.gelu_mul, gate, up)


def gelu_tanh_mul(gate: Tensor, up: Tensor | None) -> Tensor:
    """See `layercast.ops.gelu_tanh_mul`."""
    return _apply(csrc.gelu_tanh_mul, gate, up)
