"""What launches need to know of tensors and of their device."""

from __future__ import annotations

import ctypes
from functools import lru_cache

import torch

from layercast.numerics import SHARDS


def rounded(value: float) -> float:
    """`value` rounded to float32, as the kernels of every backend take it."""
    return ctypes.c_float(value).value


def alignment(in_features: int) -> int:
    """Largest power of two, at most 16, that every cut between shards is a multiple of."""
    length, rest = divmod(in_features, SHARDS)
    if rest:
        return 1
    return min(16, length & -length) if length else 16


@lru_cache(maxsize=16)
def multiprocessors(device: torch.device) -> int:
    """Streaming multiprocessors of a CUDA device; 1 where kernels are interpreted."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
