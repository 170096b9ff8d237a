"""Elementwise activations."""

from __future__ import annotations

from torch import Tensor

from layercast.kernels import cpu
from layercast.ops.checks import require_float32
from layercast.ops.registration import register, runs_directly


def _silu_kernel(x: Tensor) -> Tensor:
    require_float32("silu", "x", x)
    return cpu.silu(x)


def _silu_fake(x: Tensor) -> Tensor:
    require_float32("silu", "x", x)
    return x.new_empty(x.shape)


def _tanh_kernel(x: Tensor) -> Tensor:
    require_float32("tanh", "x", x)
    return cpu.tanh(x)


def _tanh_fake(x: Tensor) -> Tensor:
    require_float32("tanh", "x", x)
    return x.new_empty(x.shape)


_silu = register("silu(Tensor x) -> Tensor", _silu_kernel, _silu_fake)
_tanh = register("tanh(Tensor x) -> Tensor", _tanh_kernel, _tanh_fake)


def silu(x: Tensor) -> Tensor:
    """Sigmoid-weighted `x / (1 + e**-x)`, at most 2 ulp off over all float32 values.

    Order: by `exp(-|x|)`, its power of two multiplied in last, so that no step overflows and a
    result near
    x = -90 keeps its precision. An element's bits depend on it alone.

    Args:
        x: float32, any shape and strides.

    Returns:
        float32, shape of `x`, contiguous. silu(-inf) = -0; NaN is 0x7fc00000.

    Raises:
        DtypeError: `x` is not float32.
        UnsupportedError: `x` requires grad while grad mode is on, or is not on the CPU.
    """
    if not runs_directly(x):
        result: Tensor = _silu(x)
        return result
    return _silu_kernel(x)


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent, at most 1 ulp off over all float32 values.

    Args:
        x: float32, any shape and strides.

    Returns:
        float32, shape of `x`, contiguous; odd in `x`, signed zeros kept; NaN is 0x7fc00000.

    Raises:
        DtypeError: `x` is not float32.
        UnsupportedError: `x` requires grad while grad mode is on, or is not on the CPU.
    """
    if not runs_directly(x):
        result: Tensor = _tanh(x)
        return result
    return _tanh_kernel(x)
