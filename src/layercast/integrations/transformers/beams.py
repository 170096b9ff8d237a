"""What transformers' beam search computes otherwise than the contract, replaced step by step."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from layercast import ops
from layercast.errors import UnsupportedError

_SOFTMAXES = (torch.nn.functional.log_softmax, torch.log_softmax, Tensor.log_softmax)
_TOP_KS = (torch.topk, Tensor.topk)
_DIVISIONS = (torch.div, Tensor.div, Tensor.__truediv__)
_DIGITS = Context(prec=40)


class ContractSelection(TorchFunctionMode):
    """While active, `log_softmax` is the contract's and `topk` gives equals by the lower index.

    A length penalty becomes a tensor before scores are divided by it, since some devices multiply
    by the reciprocal of a number instead. Everything else a beam search does to scores is exact:
    additions, comparisons and data movement.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Take the place of the functions named above; see TorchFunctionMode."""
        kwargs = kwargs or {}
        if func in _SOFTMAXES:
            return _log_softmax(*args, **kwargs)
        if func in _TOP_KS:
            return _topk(*args, **kwargs)
        if func in _DIVISIONS and not kwargs and isinstance(args[1], float):
            return args[0] / args[0].new_full((1,), args[1])
        return func(*args, **kwargs)


class LengthPenalty(float):
    """A length penalty whose power of a length is correctly rounded: libm's last bit varies."""

    def __rpow__(self, length: Any, modulo: Any = None) -> float:
        """`length ** penalty`, where transformers divides the score of a finished beam by it."""
        return float(_DIGITS.power(Decimal(length), Decimal(float(self))))


def _log_softmax(input: Tensor, dim: int, **_: Any) -> Tensor:
    return ops.log_softmax(input.movedim(dim, -1)).movedim(-1, dim)


def _topk(
    input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Tensor, Tensor]:
    if dim not in (-1, input.ndim - 1) or not largest:
        raise UnsupportedError(
            "generate: a beam search must keep the largest scores along the last axis, got topk "
            f"with dim={dim}, largest={largest}. Use num_beams=1 with this release of transformers."
        )
    return ops.topk(input, k)
