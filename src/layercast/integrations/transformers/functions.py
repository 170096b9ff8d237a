"""Functions that a model's own code calls, taken over while its forward pass runs.

Most arithmetic of a model lies in modules, which are swapped. What is left stands in forward
methods themselves: Gemma caps its logits with `torch.tanh`, Granite divides them by a number.
A torch function mode hands such calls to `layercast.ops`, without a copy of the model's code.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from layercast import ops

_Stock = Callable[..., Any]


class _Thread(threading.local):
    depth = 0  # modes on in this thread: torch keeps them by thread, and two would only cost time


_THREAD = _Thread()


class ContractedFunctions(TorchFunctionMode):
    """Sends calls of the functions in `TAKEN_OVER` on float32 tensors to our operations.

    A call with arguments that the contract does not cover goes where it was meant to go.
    """

    def __torch_function__(
        self,
        func: _Stock,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by torch for every function."""
        options = kwargs or {}
        ours = TAKEN_OVER.get(func)
        if ours is not None and _is_float32(*args[:1]) and "out" not in options:
            result = ours(*args, **options)
            if result is not None:
                return result
        return func(*args, **options)

    def __enter__(self) -> Any:
        _THREAD.depth += 1
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *exception: Any) -> Any:
        _THREAD.depth -= 1
        return super().__exit__(*exception)  # type: ignore[no-untyped-call]


def contracted_functions(needed: bool) -> AbstractContextManager[Any]:
    """The mode where it is needed and not on already.

    Args:
        needed: Whether the model's own code may call such functions.

    Returns:
        A context manager.
    """
    return ContractedFunctions() if needed and not _THREAD.depth else nullcontext()


def _is_float32(*tensors: Any) -> bool:
    return bool(tensors) and all(
        isinstance(t, Tensor) and t.dtype is torch.float32 for t in tensors
    )


def _divide(x: Tensor, divisor: Any, *, rounding_mode: str | None = None) -> Tensor | None:
    # By a tensor: some devices turn division by a number into multiplication by its reciprocal.
    if rounding_mode is not None or isinstance(divisor, Tensor | complex):
        return None
    return x / x.new_full((1,), divisor)


def _divide_in_place(x: Tensor, divisor: Any, **options: Any) -> Tensor | None:
    quotient = _divide(x, divisor, **options)
    return None if quotient is None else x.copy_(quotient)


def _is_last(x: Tensor, dim: int | None) -> bool:
    return dim is not None and dim in (-1, x.dim() - 1)


def _softmax(x: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
    return ops.softmax(x) if _over_last_in_float32(x, *args, **kwargs) else None


def _log_softmax(x: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
    return ops.log_softmax(x) if _over_last_in_float32(x, *args, **kwargs) else None


def _over_last_in_float32(
    x: Tensor, dim: int | None = None, *rest: Any, dtype: torch.dtype | None = None, **_: Any
) -> bool:
    # After the dimension come a dtype (torch.softmax) or a stack level and a dtype (F.softmax).
    given = next((r for r in rest if isinstance(r, torch.dtype)), dtype)
    return _is_last(x, dim) and given in (None, torch.float32)


def _silu(input: Tensor, inplace: bool = False) -> Tensor:
    return input.copy_(ops.silu(input)) if inplace else ops.silu(input)


def _gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    return ops.gelu_tanh(input) if approximate == "tanh" else ops.gelu(input)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return ops.linear(input, weight, bias)


def _layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    return ops.layer_norm(input, weight, bias, eps=eps) if len(normalized_shape) == 1 else None


def _topk(
    x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> Any:  # `sorted` asks for less than is given
    if not largest or not _is_last(x, dim):
        return None
    return torch.return_types.topk(ops.topk(x, k))


def _tanh(x: Tensor) -> Tensor:
    return ops.tanh(x)


def _sigmoid(x: Tensor) -> Tensor:
    return ops.sigmoid(x)


TAKEN_OVER: dict[Any, Callable[..., Any]] = {
    torch.tanh: _tanh,
    Tensor.tanh: _tanh,
    torch.sigmoid: _sigmoid,
    Tensor.sigmoid: _sigmoid,
    Tensor.div: _divide,  # what `x / 3.0` arrives as
    Tensor.true_divide: _divide,
    torch.div: _divide,
    torch.true_divide: _divide,
    Tensor.div_: _divide_in_place,  # and `x /= 3.0`
    torch.softmax: _softmax,
    Tensor.softmax: _softmax,
    F.softmax: _softmax,
    torch.log_softmax: _log_softmax,
    Tensor.log_softmax: _log_softmax,
    F.log_softmax: _log_softmax,
    F.silu: _silu,
    F.gelu: _gelu,
    F.linear: _linear,
    F.layer_norm: _layer_norm,
    torch.topk: _topk,
    Tensor.topk: _topk,
}
"""Stock function to ours, which answers None for arguments it does not cover."""
