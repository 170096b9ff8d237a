"""`route` and `experts`: one token and one expert at a time."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from layercast.kernels.reference.arithmetic import Float32, canonical, fma
from layercast.kernels.reference.gated import gate
from layercast.kernels.reference.reduction import reduce
from layercast.kernels.reference.selection import descending
from layercast.kernels.reference.softmax import softmax
from layercast.kernels.reference.tensors import integers, to_tensor, upcast


def route(router_logits: Tensor, top_k: int, renormalize: bool) -> tuple[Tensor, Tensor]:
    """See `layercast.ops.route`."""
    p = upcast(softmax(router_logits))
    indices = descending(p)[..., :top_k]
    weights = np.take_along_axis(p, indices, axis=-1)
    if renormalize:
        total = np.zeros(weights.shape[:-1], np.float32)
        with np.errstate(all="ignore"):
            for j in range(top_k):
                total = total + weights[..., j]
            weights = weights / total[..., np.newaxis]
    return to_tensor(canonical(weights)), to_tensor(indices)


def _multiply(x: Float32, weight: Float32) -> Float32:
    """One row of `x` with each row of `weight`, by the contract's reduction."""
    N, K = weight.shape
    return reduce(K, lambda k, acc: fma(x[k], weight[:, k], acc), (N,))


def experts(
    x: Tensor, gate_up: Tensor, down: Tensor, indices: Tensor, weights: Tensor, activation: str
) -> Tensor:
    """See `layercast.ops.experts`."""
    top_k = indices.shape[-1]
    rows = upcast(x).reshape(indices.numel() // top_k, x.shape[-1])
    chosen = integers(indices).reshape(-1, top_k)
    shares = upcast(weights).reshape(-1, top_k)
    y = np.zeros_like(rows)
    for t, row in enumerate(rows):
        for j in np.argsort(chosen[t], kind="stable"):
            e = int(chosen[t, j])
            both = canonical(_multiply(row, upcast(gate_up[e])))
            half = len(both) // 2
            inner = canonical(gate(activation, both[:half], both[half:]))
            out = canonical(_multiply(inner, upcast(down[e])))
            with np.errstate(all="ignore"):
                y[t] = y[t] + (shares[t, j] * out)
    return to_tensor(canonical(y).reshape(x.shape))
