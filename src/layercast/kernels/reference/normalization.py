"""`rms_norm` and `layer_norm`, each step rounded once."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from layercast.kernels.reference.arithmetic import canonical
from layercast.kernels.reference.contract import ONE
from layercast.kernels.reference.reduction import dot_rows, sum_rows
from layercast.kernels.reference.tensors import to_tensor, upcast


def rms_norm(x: Tensor, weight: Tensor, eps: float, unit_offset: bool) -> Tensor:
    """See `layercast.ops.rms_norm`."""
    rows, w = upcast(x), upcast(weight)
    with np.errstate(all="ignore"):
        mean_square = dot_rows(rows, rows)[..., np.newaxis] / np.float32(rows.shape[-1])
        r = ONE / np.sqrt(mean_square + np.float32(eps))
        if unit_offset:
            w = ONE + w
        return to_tensor(canonical((rows * r) * w))


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """See `layercast.ops.layer_norm`."""
    rows = upcast(x)
    n = np.float32(rows.shape[-1])
    with np.errstate(all="ignore"):
        d = rows - sum_rows(rows)[..., np.newaxis] / n
        r = ONE / np.sqrt(dot_rows(d, d)[..., np.newaxis] / n + np.float32(eps))
        y = d * r
        if weight is not None:
            y = y * upcast(weight)
        if bias is not None:
            y = y + upcast(bias)
        return to_tensor(canonical(y))
