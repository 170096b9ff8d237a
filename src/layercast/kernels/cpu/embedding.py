"""`embedding` by the C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from layercast.errors import ValueRangeError
from layercast.kernels.cpu.isa import csrc
from layercast.kernels.cpu.tensors import STORAGE


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """See `layercast.ops.embedding`."""
    ids = ids.contiguous()
    weight = weight.contiguous()
    vocabulary, hidden = weight.shape
    y = ids.new_empty((*ids.shape, hidden), dtype=torch.float32)
    inside = csrc.embedding(
        ids.data_ptr(),
        weight.data_ptr(),
        STORAGE[weight.dtype],
        y.data_ptr(),
        ids.numel(),
        vocabulary,
        hidden,
        torch.get_num_threads(),
    )
    if not inside:
        raise ValueRangeError(
            f"embedding: `ids` must lie in 0..{vocabulary - 1}, got values from "
            f"{int(ids.min())} to {int(ids.max())}. "
            "Check that tokenizer and checkpoint belong together."
        )
    return y
