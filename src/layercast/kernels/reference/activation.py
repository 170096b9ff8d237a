"""Elementwise functions on tensors."""

from __future__ import annotations

from torch import Tensor

from layercast.kernels.reference import contract
from layercast.kernels.reference.arithmetic import canonical
from layercast.kernels.reference.tensors import to_tensor, upcast


def exp(x: Tensor) -> Tensor:
    """e**x of each element."""
    return to_tensor(canonical(contract.exp(upcast(x))))


def log(x: Tensor) -> Tensor:
    """Natural logarithm of each element."""
    return to_tensor(canonical(contract.log(upcast(x))))


def tanh(x: Tensor) -> Tensor:
    """See `layercast.ops.tanh`."""
    return to_tensor(canonical(contract.tanh(upcast(x))))


def silu(x: Tensor) -> Tensor:
    """See `layercast.ops.silu`."""
    return to_tensor(canonical(contract.silu(upcast(x))))


def sigmoid(x: Tensor) -> Tensor:
    """See `layercast.ops.sigmoid`."""
    return to_tensor(canonical(contract.sigmoid(upcast(x))))


def gelu(x: Tensor) -> Tensor:
    """See `layercast.ops.gelu`."""
    return to_tensor(canonical(contract.gelu(upcast(x))))


def gelu_tanh(x: Tensor) -> Tensor:
    """See `layercast.ops.gelu_tanh`."""
    return to_tensor(canonical(contract.gelu_tanh(upcast(x))))
