"""`linear`: matrix product with weights in 16-bit storage and binary32 arithmetic."""

from __future__ import annotations

from torch import Tensor

from layercast.errors import ShapeError
from layercast.kernels import cpu
from layercast.ops.checks import require_dims, require_float32, require_storage
from layercast.ops.registration import register, runs_directly


def _check(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    require_float32("linear", "x", x)
    require_storage("linear", "weight", weight)
    require_dims("linear", "weight", weight, 2, "(N, K)")
    if x.dim() == 0 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: `x` must have the {weight.shape[1]} input features of `weight` "
            f"{tuple(weight.shape)} as its last axis, got {tuple(x.shape)}. "
            "Weights are (out_features, in_features)."
        )
    if bias is not None:
        require_storage("linear", "bias", bias)
        if bias.shape != weight.shape[:1]:
            raise ShapeError(
                f"linear: `bias` must have shape ({weight.shape[0]},), got {tuple(bias.shape)}. "
                "One value per output feature."
            )


def _kernel(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    _check(x, weight, bias)
    return cpu.linear(x, weight, bias)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    _check(x, weight, bias)
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


_operation = register(
    "linear(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor", _kernel, _fake
)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply `x` by the transpose of `weight` and add `bias`.

    Order: each output is the contract's reduction over K (8 shards, chunks of 64, one chain of
    fused
    multiply-adds in a chunk, shards joined in a tree), then one add of the bias. An output's bits
    depend on its row of `x`, its row of `weight` and its bias alone.

    Args:
        x: Activations, float32, shape (..., K), any strides.
        weight: bfloat16, float16 or float32, shape (N, K), upcast exactly; read where it lies if
            its last axis is contiguous, copied first otherwise.
        bias: bfloat16, float16 or float32, shape (N,), or None.

    Returns:
        float32, shape (..., N), contiguous. NaN is 0x7fc00000. With K = 0 every product is +0.

    Raises:
        DtypeError: `x` is not float32, or `weight` or `bias` not in a storage type.
        ShapeError: The axes do not fit.
        UnsupportedError: A tensor requires grad while grad mode is on, or is not on the CPU.

    References:
        Storage in 16 bits, arithmetic in binary32: Yuan et al. 2025, arXiv:2506.09501, section 5.
    """
    if not runs_directly(x, weight, bias):
        result: Tensor = _operation(x, weight, bias)
        return result
    return _kernel(x, weight, bias)
