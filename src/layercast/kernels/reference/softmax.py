"""`softmax` and `log_softmax`."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from layercast.kernels.reference import contract
from layercast.kernels.reference.arithmetic import Float32, canonical
from layercast.kernels.reference.reduction import sum_rows
from layercast.kernels.reference.tensors import to_tensor, upcast


def _shift(x: Float32) -> Float32:
    """`x` less its row's maximum, which is NaN where the row holds one."""
    m = np.max(x, axis=-1, keepdims=True, initial=-np.inf)
    with np.errstate(all="ignore"):
        shifted: Float32 = x - m.astype(np.float32)
    return shifted


def softmax(x: Tensor) -> Tensor:
    """See `layercast.ops.softmax`."""
    e = contract.exp(_shift(upcast(x)))
    with np.errstate(all="ignore"):
        return to_tensor(canonical(e / sum_rows(e)[..., np.newaxis]))


def log_softmax(x: Tensor) -> Tensor:
    """See `layercast.ops.log_softmax`."""
    shifted = _shift(upcast(x))
    total = sum_rows(contract.exp(shifted))[..., np.newaxis]
    with np.errstate(all="ignore"):
        return to_tensor(canonical(shifted - contract.log(total)))
