"""Elementwise functions by the C++ kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from layercast.kernels.cpu.isa import csrc


def _apply(kernel: Callable[[int, int, int, int], None], x: Tensor) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    kernel(x.data_ptr(), y.data_ptr(), x.numel(), torch.get_num_threads())
    return y


def exp(x: Tensor) -> Tensor:
    """e**x of each element of `x`, float32; at most 1 ulp off."""
    return _apply(csrc.exp, x)


def log(x: Tensor) -> Tensor:
    """Natural logarithm of each element of `x`, float32; at most 1 ulp off."""
    return _apply(csrc.log, x)


def tanh(x: Tensor) -> Tensor:
    """See `layercast.ops.tanh`."""
    return _apply(csrc.tanh, x)


def silu(x: Tensor) -> Tensor:
    """See `layercast.ops.silu`."""
    return _apply(csrc.silu, x)


def sigmoid(x: Tensor) -> Tensor:
    """See `layercast.ops.sigmoid`."""
    return _apply(csrc.sigmoid, x)


def gelu(x: Tensor) -> Tensor:
    """See `layercast.ops.gelu`."""
    return _apply(csrc.gelu, x)


def gelu_tanh(x: Tensor) -> Tensor:
    """See `layercast.ops.gelu_tanh`."""
    return _apply(csrc.gelu_tanh, x)
