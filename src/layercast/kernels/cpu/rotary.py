"""`rotary_table` and `rotary` by the C++ kernels."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from layercast.kernels.cpu.isa import csrc


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
    cos, sin = cos.contiguous(), sin.contiguous()
    q_strides, k_strides = q.stride(), k.stride()
    if q_strides[3] != 1:
        q = q.contiguous()
        q_strides = q.stride()
    if k_strides[3] != 1:
        k = k.contiguous()
        k_strides = k.stride()
    B, Hq, T, D = q.shape
    rotated_q = torch.empty_like(q, memory_format=torch.contiguous_format)
    rotated_k = torch.empty_like(k, memory_format=torch.contiguous_format)
    csrc.rotary(
        q.data_ptr(),
        rotated_q.data_ptr(),
        Hq,
        q_strides[0],
        q_strides[1],
        q_strides[2],
        k.data_ptr(),
        rotated_k.data_ptr(),
        k.shape[1],
        k_strides[0],
        k_strides[1],
        k_strides[2],
        cos.data_ptr(),
        sin.data_ptr(),
        B,
        T,
        D,
        cos.shape[-1],
        torch.get_num_threads(),
    )
    return rotated_q, rotated_k
