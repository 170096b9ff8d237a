"""`route` and `experts` by the C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from layercast.errors import ValueRangeError
from layercast.kernels.cpu.isa import csrc
from layercast.kernels.cpu.tensors import STORAGE
from layercast.kernels.rows import rows_of, with_unit_stride

_KERNELS = {
    "silu": csrc.experts_silu_mul,
    "gelu": csrc.experts_gelu_mul,
    "gelu_tanh": csrc.experts_gelu_tanh_mul,
}
_OUT_OF_RANGE, _TWICE = 1, 2


def route(router_logits: Tensor, top_k: int, renormalize: bool) -> tuple[Tensor, Tensor]:
    """See `layercast.ops.route`."""
    router_logits = router_logits.contiguous()
    shape = (*router_logits.shape[:-1], top_k)
    weights = router_logits.new_empty(shape)
    indices = router_logits.new_empty(shape, dtype=torch.int64)
    csrc.route(
        router_logits.data_ptr(),
        weights.data_ptr(),
        indices.data_ptr(),
        rows_of(router_logits),
        router_logits.shape[-1],
        top_k,
        renormalize,
        torch.get_num_threads(),
    )
    return weights, indices


def _described(weight: Tensor) -> tuple[int, int, int, int]:
    return weight.data_ptr(), weight.stride(1), weight.stride(0), STORAGE[weight.dtype]


def experts(
    x: Tensor, gate_up: Tensor, down: Tensor, indices: Tensor, weights: Tensor, activation: str
) -> Tensor:
    """See `layercast.ops.experts`."""
    x, indices, weights = x.contiguous(), indices.contiguous(), weights.contiguous()
    gate_up, down = with_unit_stride(gate_up), with_unit_stride(down)
    E, hidden, intermediate = down.shape
    y = torch.empty_like(x)
    error = _KERNELS[activation](
        x.data_ptr(),
        _described(gate_up),
        _described(down),
        indices.data_ptr(),
        weights.data_ptr(),
        y.data_ptr(),
        rows_of(x),
        indices.shape[-1],
        E,
        hidden,
        intermediate,
        torch.get_num_threads(),
    )
    if error == _OUT_OF_RANGE:
        raise ValueRangeError(
            f"experts: `indices` must lie in 0..{E - 1}, got values from {int(indices.min())} to "
            f"{int(indices.max())}. Take them from `route` with the router of this layer."
        )
    if error == _TWICE:
        raise ValueRangeError(
            "experts: `indices` must name an expert once per token, got one twice. "
            "Take them from `route`, or add the weights of equal experts first."
        )
    return y
