"""Memory that must not be read, filled with what would show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor


def _fill(tensor: Tensor) -> Tensor:
    if tensor.is_floating_point() or tensor.is_complex():
        return tensor.fill_(float("nan"))
    if tensor.dtype == torch.bool:
        return tensor.fill_(True)
    return tensor.fill_(torch.iinfo(tensor.dtype).max)


@contextmanager
def poisoned_empty() -> Iterator[None]:
    """Within the context, `torch.empty` and its kin return NaN (integers: the largest) everywhere.

    Code that leaves an element of its result unwritten, or reads a buffer before writing it, then
    shows. Patches the functions of the `torch` module and the methods of `Tensor`: code that kept a
    reference of its own to one of them is not reached.
    """

    def poison(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def filled(*args: Any, **kwargs: Any) -> Tensor:
            return _fill(function(*args, **kwargs))

        return filled

    with (
        mock.patch.object(torch, "empty", poison(torch.empty)),
        mock.patch.object(torch, "empty_like", poison(torch.empty_like)),
        mock.patch.object(torch, "empty_strided", poison(torch.empty_strided)),
        mock.patch.object(Tensor, "new_empty", poison(Tensor.new_empty)),
    ):
        yield


def poisoned(x: Tensor, where: Tensor) -> Tensor:
    """A copy of `x` whose elements at `where` are NaN, +inf, -inf and the largest float in turn.

    Args:
        x: Floating point.
        where: Boolean, broadcastable to the shape of `x`; True where nothing may be read.

    Returns:
        A tensor like `x`.
    """
    y = x.clone()
    mask = where.expand_as(x)
    values = torch.tensor([float("nan"), float("inf"), -float("inf"), torch.finfo(x.dtype).max])
    y[mask] = values.to(x.dtype).repeat(int(mask.sum()) // 4 + 1)[: int(mask.sum())]
    return y
