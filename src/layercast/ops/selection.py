"""`argmax`: the position of the largest element, ties to the lowest index."""

from __future__ import annotations

import torch
from torch import Tensor

from layercast.errors import ShapeError
from layercast.kernels import cpu
from layercast.ops.checks import require_float32, require_last_axis
from layercast.ops.registration import register, runs_directly


def _check(x: Tensor) -> None:
    require_float32("argmax", "x", x)
    require_last_axis("argmax", "x", x)
    if x.shape[-1] == 0:
        raise ShapeError(
            f"argmax: `x` must have at least one element in a row, got shape {tuple(x.shape)}. "
            "An empty row has no largest element."
        )


def _kernel(x: Tensor) -> Tensor:
    _check(x)
    return cpu.argmax(x)


def _fake(x: Tensor) -> Tensor:
    _check(x)
    return x.new_empty(x.shape[:-1], dtype=torch.int64)


_operation = register("argmax(Tensor x) -> Tensor", _kernel, _fake)


def argmax(x: Tensor) -> Tensor:
    """Index of each row's largest element: the lowest among equals, the first NaN where there is
    one.

    Args:
        x: float32, shape (..., n), n >= 1, any strides. -0 and +0 are equal.

    Returns:
        int64, shape (...).

    Raises:
        DtypeError: `x` is not float32.
        ShapeError: `x` is a scalar or its rows are empty.
        UnsupportedError: `x` requires grad while grad mode is on, or is not on the CPU.
    """
    if not runs_directly(x):
        result: Tensor = _operation(x)
        return result
    return _kernel(x)
