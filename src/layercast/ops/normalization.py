"""`rms_norm`: normalisation of a row by its root mean square."""

from __future__ import annotations

from torch import Tensor

from layercast.errors import ShapeError, ValueRangeError
from layercast.kernels import cpu
from layercast.ops.checks import require_float32, require_last_axis, require_storage
from layercast.ops.registration import register, runs_directly


def _check(x: Tensor, weight: Tensor, eps: float) -> None:
    require_float32("rms_norm", "x", x)
    require_last_axis("rms_norm", "x", x)
    require_storage("rms_norm", "weight", weight)
    if weight.shape != x.shape[-1:]:
        raise ShapeError(
            f"rms_norm: `weight` must have shape ({x.shape[-1]},), the last axis of `x`, got "
            f"{tuple(weight.shape)}. One gain per channel."
        )
    if not eps >= 0.0:
        raise ValueRangeError(
            f"rms_norm: `eps` must be >= 0, got {eps}. "
            "Take it from the model's config (rms_norm_eps)."
        )


def _kernel(x: Tensor, weight: Tensor, eps: float, unit_offset: bool) -> Tensor:
    _check(x, weight, eps)
    return cpu.rms_norm(x, weight, eps, unit_offset)


def _fake(x: Tensor, weight: Tensor, eps: float, unit_offset: bool) -> Tensor:
    _check(x, weight, eps)
    return x.new_empty(x.shape)


_operation = register(
    "rms_norm(Tensor x, Tensor weight, float eps, bool unit_offset) -> Tensor", _kernel, _fake
)


def rms_norm(x: Tensor, weight: Tensor, *, eps: float, unit_offset: bool = False) -> Tensor:
    """Scale each row of `x` to unit root mean square, then by `weight`.

    Order: squares are summed by the contract's reduction; divide by `hidden`, add `eps`, square
    root,
    reciprocal, multiply by `x`, then by `weight` (by `1 + weight`, added first, with
    `unit_offset`); each step rounds once. A row's bits depend on that row alone.

    Args:
        x: Activations, float32, shape (..., hidden), any strides.
        weight: Gain per channel, bfloat16, float16 or float32, shape (hidden,), upcast exactly.
        eps: Added to the mean square, rounded to float32; dimensionless, >= 0.
        unit_offset: Scale by `1 + weight`, as Gemma does.

    Returns:
        float32, shape of `x`, contiguous. A row holding NaN returns NaN.

    Raises:
        DtypeError: `x` is not float32, or `weight` not in a storage type.
        ShapeError: `weight` does not match the last axis of `x`.
        ValueRangeError: `eps` is negative or NaN.
        UnsupportedError: A tensor requires grad while grad mode is on, or is not on the CPU.

    References:
        Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4.
    """
    if not runs_directly(x):
        result: Tensor = _operation(x, weight, eps, unit_offset)
        return result
    return _kernel(x, weight, eps, unit_offset)
