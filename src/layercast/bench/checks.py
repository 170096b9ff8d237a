"""A result is right before its time counts: its bits by definition, its accuracy by float64."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from layercast.bench.case import Variant
from layercast.errors import GuaranteeError
from layercast.numerics import CHUNK, SHARDS

UNIT_ROUNDOFF = 2.0**-24


def require_bits(operation: str, got: Tensor, defined: Tensor) -> int:
    """Refuse a result that differs from the definition in any bit.

    Args:
        operation: What the message calls it.
        got: float32 or int64.
        defined: What `layercast.kernels.reference` gives, or what must be equal to it.

    Returns:
        Elements compared, at least 1.

    Raises:
        GuaranteeError: A bit, the shape or the dtype differs, or there is nothing to compare.
    """
    if got.shape != defined.shape or got.dtype != defined.dtype or got.numel() == 0:
        raise GuaranteeError(
            f"bench: the result of `{operation}` must be {defined.dtype} of shape "
            f"{tuple(defined.shape)}, not empty, got {got.dtype} of {tuple(got.shape)}. Nothing "
            "was timed; run `make test`."
        )
    unequal = _bits(got) != _bits(defined)
    if bool(unequal.any()):
        where = tuple(int(i) for i in unequal.nonzero()[0])
        raise GuaranteeError(
            f"bench: `{operation}` must have the bits of its definition, got {int(unequal.sum())} "
            f"of {got.numel()} values with others, the first at {where}: {got[where].item()!r} "
            f"for {defined[where].item()!r}. Nothing was timed; run `make test`."
        )
    return got.numel()


def require_error_bound(operation: str, got: Tensor, exact: Tensor, bound: Tensor) -> None:
    """Refuse a result whose error exceeds what its roundings can make.

    Args:
        operation: What the message calls it.
        got: float32.
        exact: float64.
        bound: float64, the largest error of each element.

    Raises:
        GuaranteeError: An error is larger, or NaN.
    """
    error = (got.double() - exact).abs()
    beyond = ~(error <= bound)
    if bool(beyond.any()):
        where = tuple(int(i) for i in beyond.nonzero()[0])
        raise GuaranteeError(
            f"bench: the error of `{operation}` against float64 must be within its bound, got "
            f"{error[where].item():.3g} at {where} where {bound[where].item():.3g} is the most. "
            "Nothing was timed; run `make test`."
        )


def linear_error_bound(x: Tensor, weight: Tensor) -> Tensor:
    """Return the largest error of the contract's `linear`, element by element.

    A term passes its chunk's chain, its shard's sum and the tree: n roundings in all, so the error
    is at most gamma_n * sum(|x||w|), gamma_n = n*u / (1 - n*u) (Higham 2002, section 3.1).

    Args:
        x: Shape (M, K).
        weight: Shape (N, K).

    Returns:
        float64, shape (M, N).
    """
    K = x.shape[-1]
    shard = -(-K // SHARDS)
    n = min(CHUNK, shard) + -(-shard // CHUNK) + SHARDS.bit_length() - 1
    gamma = n * UNIT_ROUNDOFF / (1 - n * UNIT_ROUNDOFF)
    return gamma * (x.double().abs() @ weight.double().abs().T)


def relative_errors(results: Mapping[Variant, Tensor], exact: Tensor) -> dict[str, float]:
    """Return each result's distance from `exact` in the 2-norm, over the norm of `exact`."""
    norm = exact.norm()
    return {
        variant: float((result.double() - exact).norm() / norm)
        for variant, result in results.items()
    }


def _bits(values: Tensor) -> Tensor:
    return values.view(torch.int32) if values.dtype == torch.float32 else values
