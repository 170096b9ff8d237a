"""`embedding`: rows of the table, upcast."""

from __future__ import annotations

from torch import Tensor

from layercast.kernels.reference.arithmetic import canonical
from layercast.kernels.reference.tensors import integers, to_tensor, upcast


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """See `layercast.ops.embedding`."""
    return to_tensor(canonical(upcast(weight)[integers(ids)]))
