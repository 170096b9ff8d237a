"""Equality of bits: signed zeros differ, NaN equals NaN."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_SAME_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(x: Tensor) -> Tensor:
    """The bits of `x` as integers of the same width; every NaN of a floating type as the same one.

    Args:
        x: Any dtype and shape; not complex.

    Returns:
        An integer tensor of the same shape.
    """
    x = x.detach()
    if x.is_floating_point():
        x = torch.where(torch.isnan(x), torch.full_like(x, float("nan")), x)
    return x.contiguous().view(_SAME_SIZE[x.element_size()])


def _pattern(value: int, size: int) -> str:
    return f"0x{value % (1 << 8 * size):0{2 * size}x}"


def assert_bitwise_equal(
    actual: Tensor | np.ndarray, expected: Tensor | np.ndarray, *, what: str = "tensors"
) -> None:
    """Assert that two tensors hold the same bits: signed zeros differ, any NaN equals any NaN.

    Args:
        actual: Tensor or array.
        expected: Tensor or array of the same dtype and shape.
        what: Names the pair in the message.

    Raises:
        AssertionError: Dtype, shape or a bit differs; the message holds the number of differing
            elements and the index, both values and both bit patterns of the first.
    """
    a, b = torch.as_tensor(actual), torch.as_tensor(expected)
    if a.dtype != b.dtype:
        raise AssertionError(f"{what}: dtype {a.dtype} is not {b.dtype}")
    if a.shape != b.shape:
        raise AssertionError(f"{what}: shape {tuple(a.shape)} is not {tuple(b.shape)}")
    a_bits, b_bits = bits(a), bits(b)
    different = a_bits != b_bits
    count = int(different.sum())
    if count == 0:
        return
    index = tuple(int(i) for i in different.nonzero()[0])
    size = a.element_size()
    raise AssertionError(
        f"{what}: {count} of {a.numel()} elements differ; the first at {index}: "
        f"{a[index].item()!r} ({_pattern(int(a_bits[index]), size)}) is not "
        f"{b[index].item()!r} ({_pattern(int(b_bits[index]), size)})"
    )
