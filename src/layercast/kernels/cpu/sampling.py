"""`sample` by the C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from layercast.errors import ValueRangeError
from layercast.kernels.cpu.isa import csrc


def sample(
    logits: Tensor,
    temperature: float,
    seed: int,
    sequence_keys: Tensor,
    positions: Tensor,
    top_k: int,
    top_p_units: int,
    min_p_units: int,
) -> Tensor:
    """See `layercast.ops.sample`; `top_p_units` and `min_p_units` count units of 2**-32."""
    logits = logits.contiguous()
    sequence_keys, positions = sequence_keys.contiguous(), positions.contiguous()
    rows, n = logits.shape
    tokens = logits.new_empty(rows, dtype=torch.int64)
    csrc.sample(
        logits.data_ptr(),
        sequence_keys.data_ptr(),
        positions.data_ptr(),
        tokens.data_ptr(),
        rows,
        n,
        temperature,
        top_k,
        top_p_units,
        min_p_units,
        seed,
        torch.get_num_threads(),
    )
    if rows and int(tokens.min()) < 0:
        row = int(torch.argmin(tokens))
        raise ValueRangeError(
            f"sample: `logits` must hold no NaN or +inf and at least one finite value in each row, "
            f"got row {row} without a distribution. Look for an overflow in the model's last layer."
        )
    return tokens
