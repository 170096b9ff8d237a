"""`rotary_table` and `rotary` by the C++ kernels."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from layercast.kernels.cpu.isa import csrc
from layercast.kernels.cpu.tensors import with_unit_stride


@lru_cache(maxsize=64)
def frequencies(base: float, head_dim: int) -> Tensor:
    """`base ** (-2 i / head_dim)` for i in 0..head_dim / 2, float64, at most 1 ulp off."""
    y = torch.empty(head_dim // 2, dtype=torch.float64, device="cpu")
    csrc.rotary_frequencies(base, head_dim, y.data_ptr())
    return y


def rotary_table(
    position_ids: Tensor, inv_freq: Tensor, attention_scaling: float
) -> tuple[Tensor, Tensor]:
    """See `layercast.ops.rotary_table`."""
    position_ids = position_ids.contiguous()
    inv_freq = inv_freq.contiguous()
    half = inv_freq.numel()
    cos = position_ids.new_empty((*position_ids.shape, 2 * half), dtype=torch.float32)
    sin = torch.empty_like(cos)
    csrc.rotary_table(
        position_ids.data_ptr(),
        inv_freq.data_ptr(),
        cos.data_ptr(),
        sin.data_ptr(),
        position_ids.numel(),
        half,
        attention_scaling,
        torch.get_num_threads(),
    )
    return cos, sin


def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """See `layercast.ops.rotary`."""
    q, k = with_unit_stride(q), with_unit_stride(k)
    cos, sin = cos.contiguous(), sin.contiguous()
    B, Hq, T, D = q.shape
    Hkv = k.shape[1]
    rotated_q, rotated_k = q.new_empty((B, Hq, T, D)), k.new_empty((B, Hkv, T, D))
    csrc.rotary(
        (q.data_ptr(), rotated_q.data_ptr(), Hq, *q.stride()[:3]),
        (k.data_ptr(), rotated_k.data_ptr(), Hkv, *k.stride()[:3]),
        cos.data_ptr(),
        sin.data_ptr(),
        B,
        T,
        D,
        cos.shape[-1],
        torch.get_num_threads(),
    )
    return rotated_q, rotated_k
