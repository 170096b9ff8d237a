"""`argmax`."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from layercast.kernels.reference.tensors import to_tensor, upcast


def argmax(x: Tensor) -> Tensor:
    """See `layercast.ops.argmax`."""
    # NumPy documents both rules: the first of equals, and the first NaN.
    return to_tensor(np.asarray(np.argmax(upcast(x), axis=-1), dtype=np.int64))
