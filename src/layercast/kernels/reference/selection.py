"""`argmax` and `topk`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from layercast.kernels.reference.arithmetic import Float32, canonical
from layercast.kernels.reference.tensors import to_tensor, upcast


def argmax(x: Tensor) -> Tensor:
    """See `layercast.ops.argmax`."""
    # NumPy documents both rules: the first of equals, and the first NaN.
    return to_tensor(np.asarray(np.argmax(upcast(x), axis=-1), dtype=np.int64))


def descending(x: Float32) -> NDArray[np.int64]:
    """Indices of each row by descending value, equals by ascending index, NaN first."""
    # A stable ascending sort of the negated values; NaN would go last, -inf comes first.
    keys = np.where(np.isnan(x), -np.inf, -x)
    plus_infinity_or_nan = np.where(np.isnan(x), 0, 1)
    return np.lexsort((keys, plus_infinity_or_nan), axis=-1)


def topk(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """See `layercast.ops.topk`."""
    rows = upcast(x)
    order = descending(rows)[..., :k]
    values = np.take_along_axis(rows, order, axis=-1)
    return to_tensor(canonical(values)), to_tensor(order)
