"""`linear` and `linear_part` by the C++ kernels; `join_parts` by torch's additions."""

from __future__ import annotations

import torch
from torch import Tensor

from layercast.kernels.cpu.isa import csrc
from layercast.kernels.cpu.tensors import STORAGE
from layercast.kernels.rows import rows_of, with_unit_stride
from layercast.numerics import SHARDS


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See `layercast.ops.linear`."""
    return _run(x, weight, bias, weight.shape[1], 0, SHARDS)


def linear_part(x: Tensor, weight: Tensor, in_features: int, part: int, parts: int) -> Tensor:
    """See `layercast.ops.linear_part`."""
    shards = SHARDS // parts
    return _run(x, weight, None, in_features, part * shards, shards)


def join_parts(parts: Tensor, bias: Tensor | None) -> Tensor:
    """See `layercast.ops.join_parts`."""
    sums = list(parts)
    while len(sums) > 1:
        sums = [left + right for left, right in zip(sums[::2], sums[1::2], strict=True)]
    y: Tensor = sums[0].clone() if bias is None else sums[0] + bias.float()
    # Hardware differs in a NaN's sign and payload.
    return y.masked_fill_(y.isnan(), torch.nan)


def _run(
    x: Tensor, weight: Tensor, bias: Tensor | None, in_features: int, first_shard: int, shards: int
) -> Tensor:
    x = x.contiguous()
    N, K = weight.shape
    transposed, ldw = False, K
    if not weight.is_contiguous():
        # A transposed view of a contiguous (K, N) is read as it lies.
        transposed = weight.stride(0) == 1 and weight.stride(1) >= N and weight.stride(1) != 1
        if not transposed:
            weight = with_unit_stride(weight)
        ldw = weight.stride(1 if transposed else 0)
    # Quicker than `new_empty`, which counts beside a small layer.
    y = torch.empty(*x.shape[:-1], N, dtype=torch.float32, device="cpu")
    bias_address = bias_storage = 0
    if bias is not None:
        bias = bias.contiguous()
        bias_address, bias_storage = bias.data_ptr(), STORAGE[bias.dtype]
    csrc.linear(
        x.data_ptr(),
        K,
        weight.data_ptr(),
        ldw,
        transposed,
        STORAGE[weight.dtype],
        bias_address,
        bias_storage,
        y.data_ptr(),
        rows_of(x),
        N,
        K,
        in_features,
        first_shard,
        shards,
        torch.get_num_threads(),
    )
    return y
