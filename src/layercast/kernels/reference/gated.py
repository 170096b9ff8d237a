"""Gated activations: an activation, then one product."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from layercast.kernels.reference import contract
from layercast.kernels.reference.arithmetic import Float32, canonical
from layercast.kernels.reference.tensors import to_tensor, upcast

ACTIVATIONS: dict[str, Callable[[Float32], Float32]] = {
    "silu": contract.silu,
    "gelu": contract.gelu,
    "gelu_tanh": contract.gelu_tanh,
}


def gate(activation: str, gate: Float32, up: Float32) -> Float32:
    """`activation(gate) * up`, each rounded."""
    with np.errstate(all="ignore"):
        return ACTIVATIONS[activation](gate) * up


def _apply(activation: str, first: Tensor, up: Tensor | None) -> Tensor:
    rows = upcast(first)
    half = rows.shape[-1] // 2
    if up is None:
        return to_tensor(canonical(gate(activation, rows[..., :half], rows[..., half:])))
    return to_tensor(canonical(gate(activation, rows, upcast(up))))


def silu_mul(gate: Tensor, up: Tensor | None) -> Tensor:
    """See `layercast.ops.silu_mul`."""
    return _apply("silu", gate, up)


def gelu_mul(gate: Tensor, up: Tensor | None) -> Tensor:
    """See `layercast.ops.gelu_mul`."""
    return _apply("gelu", gate, up)


def gelu_tanh_mul(gate: Tensor, up: Tensor | None) -> Tensor:
    """See `layercast.ops.gelu_tanh_mul`."""
    return _apply("gelu_tanh", gate, up)
