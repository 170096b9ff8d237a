"""The contract's reduction, and `dot` by it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from layercast.kernels.reference.arithmetic import Float32, canonical, fma
from layercast.kernels.reference.tensors import to_tensor, upcast
from layercast.numerics import SHARDS, chunk_bounds, shard_bounds


def reduce(
    length: int,
    step: Callable[[int, Float32], Float32],
    shape: tuple[int, ...],
    shards: range = range(SHARDS),
) -> Float32:
    """Sum `length` products in the contracted order, for many outputs side by side.

    Args:
        length: Terms of each sum.
        step: `step(k, acc)` returns `fma(x[k], w[k], acc)` for all outputs.
        shape: Shape of the outputs.
        shards: Which shards to sum: all, or an aligned power of two of them, whose subtree of the
            whole sum the result then is.

    Returns:
        float32 of shape `shape`.
    """
    with np.errstate(all="ignore"):
        sums = []
        for begin, end in shard_bounds(length)[shards.start : shards.stop]:
            shard = np.zeros(shape, np.float32)
            for start, stop in chunk_bounds(begin, end):
                chunk = np.zeros(shape, np.float32)
                for k in range(start, stop):
                    chunk = step(k, chunk)
                shard = shard + chunk
            sums.append(shard)
        while len(sums) > 1:
            sums = [left + right for left, right in zip(sums[::2], sums[1::2], strict=True)]
        return sums[0]


def dot_rows(x: Float32, w: Float32) -> Float32:
    """Inner products of the rows of `x` (..., n) with those of `w`, of the same shape or (n,)."""
    return reduce(x.shape[-1], lambda k, acc: fma(x[..., k], w[..., k], acc), x.shape[:-1])


def sum_rows(x: Float32) -> Float32:
    """Sums of the rows of `x`: `dot` with ones."""
    return dot_rows(x, np.ones(x.shape[-1], np.float32))


def dot(x: Tensor, w: Tensor) -> Tensor:
    """See `layercast.ops.dot`."""
    return to_tensor(canonical(dot_rows(upcast(x), upcast(w))))
