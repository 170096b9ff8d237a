"""`linear`: one reduction for each row of x and each row of the weight, then the bias."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from layercast.kernels.reference.arithmetic import canonical, fma
from layercast.kernels.reference.reduction import reduce
from layercast.kernels.reference.tensors import to_tensor, upcast


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See `layercast.ops.linear`."""
    rows, w = upcast(x), upcast(weight)
    N, K = w.shape
    y = reduce(
        K,
        lambda k, acc: fma(rows[..., k, np.newaxis], w[:, k], acc),
        (*rows.shape[:-1], N),
    )
    if bias is not None:
        with np.errstate(all="ignore"):
            y = y + upcast(bias)
    return to_tensor(canonical(y))
