"""`gather` and `join_parts`: what tensor-parallel ranks exchange, and the order they add it in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from layercast.errors import ShapeError, ValueRangeError
from layercast.kernels import cpu
from layercast.ops.backends import by_triton
from layercast.ops.checks import require_float32, require_storage, require_usable
from layercast.ops.registration import register, runs_directly


def _group(name: str) -> Any:
    from torch._C import _distributed_c10d  # not in every build

    resolve: Any = _distributed_c10d._resolve_process_group
    return resolve(name)


def _gather_kernel(x: Tensor, group: str, size: int) -> Tensor:
    require_usable("gather", "x", x)
    # As bytes: not every backend knows every storage type, and none of them is to compute.
    mine = x.contiguous().view(-1).view(torch.uint8)
    everyone = mine.new_empty(size * mine.numel())
    if mine.numel():
        process_group = _group(group)
        if process_group.size() != size:
            raise ValueRangeError(
                f"gather: `size` must be the ranks of group {group!r}, {process_group.size()}, got "
                f"{size}. Pass its size()."
            )
        process_group.allgather([list(everyone.view(size, -1))], [mine]).wait()
    return everyone.view(x.dtype).view(size, *x.shape)


def _gather_fake(x: Tensor, group: str, size: int) -> Tensor:
    require_usable("gather", "x", x)
    return x.new_empty((size, *x.shape))


_gather = register("gather(Tensor x, str group, int size) -> Tensor", _gather_kernel, _gather_fake)


def gather(x: Tensor, *, group: str, size: int) -> Tensor:
    """Every rank's `x`, in the order of the ranks. Data movement: no value is computed.

    Every rank of the group must call it, with the same shape and dtype.

    Args:
        x: Any dtype and shape, any strides.
        group: Name of the process group (`ProcessGroup.group_name`).
        size: Ranks in it.

    Returns:
        Dtype of `x`, shape (size, *x.shape), contiguous, the same on every rank.

    Raises:
        ValueRangeError: `size` is not that of the group.
        UnsupportedError: `x` requires grad while grad mode is on.
        BackendError: Tensors lie on several devices, or on one without kernels.
    """
    if not runs_directly(x):
        result: Tensor = _gather(x, group, size)
        return result
    return _gather_kernel(x, group, size)


def _check(parts: Tensor, bias: Tensor | None) -> None:
    require_float32("join_parts", "parts", parts)
    if parts.dim() < 2 or parts.shape[0] not in (1, 2, 4, 8):
        raise ShapeError(
            "join_parts: `parts` must have shape (P, ..., N) with P of 1, 2, 4 or 8 ranks, got "
            f"{tuple(parts.shape)}. A reduction has 8 shards, and a rank holds as many as any "
            "other."
        )
    if bias is not None:
        require_storage("join_parts", "bias", bias)
        if bias.shape != parts.shape[-1:]:
            raise ShapeError(
                f"join_parts: `bias` must have shape ({parts.shape[-1]},), got "
                f"{tuple(bias.shape)}. One value per output feature."
            )


def _join_kernel(parts: Tensor, bias: Tensor | None = None) -> Tensor:
    _check(parts, bias)
    return (cpu.join_parts if parts.is_cpu else by_triton(cpu.join_parts))(parts, bias)


def _join_fake(parts: Tensor, bias: Tensor | None = None) -> Tensor:
    _check(parts, bias)
    return parts.new_empty(parts.shape[1:])


_join = register("join_parts(Tensor parts, Tensor? bias=None) -> Tensor", _join_kernel, _join_fake)


def join_parts(parts: Tensor, bias: Tensor | None = None) -> Tensor:
    """Add the ranks' parts of a `linear` in the contract's tree, then `bias`.

    Order: `p0 + p1` for two ranks, `(p0 + p1) + (p2 + p3)` for four and so on, one rounding an
    add; then one add of the bias. With what `linear_part` gives, these are the bits of `linear`.
    An element's bits depend on its own parts and bias alone.

    Args:
        parts: float32, shape (P, ..., N), P of 1, 2, 4 or 8, in the order of the ranks.
        bias: bfloat16, float16 or float32, shape (N,), or None.

    Returns:
        float32, shape (..., N). NaN is 0x7fc00000.

    Raises:
        DtypeError: `parts` is not float32, or `bias` not in a storage type.
        ShapeError: Another number of parts, or a bias that does not fit.
        UnsupportedError: A tensor requires grad while grad mode is on.
        BackendError: Tensors lie on several devices, or on one without kernels.

    References:
        Row-parallel layers: Shoeybi et al. 2019, arXiv:1909.08053, section 3.
    """
    if not runs_directly(parts, bias):
        result: Tensor = _join(parts, bias)
        return result
    return _join_kernel(parts, bias)
