"""Error analysis of any model: float64 logits, and how far any float32 ones may be.

A sum of n products in float32, in any order, is off by at most lambda * sqrt(n) * u * sum |a||b|,
u = 2^-24, but with a probability below 2 n exp(-lambda^2 / 2) if its roundings are independent
with mean zero (Higham & Mary 2019, doi:10.1137/18M1226312); every other operation rounds a few
times. An operation's own error reaches a logit through the derivative of that logit by the
operation's result, which float64 autograd gives. The errors of different results being independent
too, the logit is off by more than lambda times the root of the sum of their squares only with a
probability of 2 exp(-lambda^2 / 2) (Hoeffding): at lambda = 6, 3e-8. First order in the errors.

The model is transformers' own, run in float64 with eager attention; a function mode notes each
operation's error as it goes by, so that no architecture is written out here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

U = 2.0**-24
LAMBDA = 6.0


def gamma(n: int) -> float:
    """Error of a sum of n terms relative to the sum of their magnitudes, without lambda."""
    return n**0.5 * U


class Analysis:
    """Float64 forward pass of a stock model given in float32, with eager attention."""

    def __init__(self, stock: nn.Module, tokens: Tensor, rotary: nn.Module | None = None) -> None:
        """Run it; `rotary` makes the float32 tables that the float32 models use too."""
        model = copy.deepcopy(stock).double().requires_grad_(False)
        if rotary is not None:
            model.model.rotary_emb = _Given(rotary, len(tokens))
        self._noted = _NotedErrors()
        with self._noted:
            self._logits = model(tokens[None], use_cache=False).logits[0]
        self.logits = self._logits.detach()

    def bound(self, position: int, token: int) -> float:
        """Of the error of one logit."""
        logit = self._logits[position, token]
        results, errors = self._noted.results, self._noted.errors
        slopes = torch.autograd.grad(logit, results, retain_graph=True, allow_unused=True)
        terms = zip(slopes, errors, strict=True)
        squares = sum((s * e).pow(2).sum() for s, e in terms if s is not None)
        return LAMBDA * float(squares) ** 0.5


class _Given(nn.Module):
    def __init__(self, rotary: nn.Module, length: int) -> None:
        super().__init__()
        tables = rotary(torch.zeros(1), torch.arange(length)[None])
        self._tables = tuple(table.double() for table in tables)

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, ...]:
        return self._tables


class _NotedErrors(TorchFunctionMode):
    """Keeps everything in float64 and notes by how much each float32 operation may be off."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[Tensor] = []
        self.errors: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = getattr(func, "__name__", "").strip("_")
        args = tuple(_as_float64(a) for a in args)
        kwargs = {key: _as_float64(value) for key, value in (kwargs or {}).items()}
        if func is Tensor.float:
            return args[0].double()
        with torch.enable_grad():  # rotary embeddings turn it off
            if name == "index_add":  # experts' outputs into one sum, in place
                target, dim, index, source = args
                size = target.index_select(dim, index).abs() + source.abs()
                return func(target, dim, index, self._own(source * 1.0, U * size))
            result = func(*args, **kwargs)
            error = _ERRORS.get(name.removeprefix("i") if name in _IN_PLACE else name)
            if error is None or not _is_float64(result):
                return result
            with torch.no_grad():
                noted = error(result, *args, **kwargs)
            return self._own(result, noted)

    def _own(self, result: Tensor, error: Tensor) -> Tensor:
        """Note that an operation's result may be off by `error`, elementwise."""
        if not result.requires_grad:
            result.requires_grad_()
        self.results.append(result)
        self.errors.append(error.detach().abs().expand_as(result))
        return result


_IN_PLACE = ("itruediv", "imul", "iadd", "isub")


def _is_float64(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype is torch.float64


def _as_float64(argument: Any) -> Any:
    return torch.float64 if argument is torch.float32 else argument


def _rounded(times: int) -> Callable[..., Tensor]:
    return lambda result, *args, **kwargs: times * U * result


def _elementwise(result: Tensor, *operands: Any, **kwargs: Any) -> Tensor:
    # A Python number is rounded to float32 first.
    return (1 if all(isinstance(o, Tensor) for o in operands) else 2) * U * result


def _linear(result: Tensor, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    size = F.linear(x.abs(), w.abs(), None if bias is None else bias.abs())
    return gamma(w.shape[1] + 1) * size


def _matmul(result: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return gamma(a.shape[-1]) * (a.abs() @ b.abs())


def _addmm(result: Tensor, bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return gamma(a.shape[-1] + 1) * (bias.abs() + a.abs() @ b.abs())


def _mean(result: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return gamma(x.numel() // result.numel() + 1) * x.abs().mean(*args, **kwargs)


def _sum(result: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return gamma(x.numel() // result.numel()) * x.abs().sum(*args, **kwargs)


def _softmax(p: Tensor, scores: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    # the rounded difference to the maximum, an exponential, the sum, rescalings, a division
    below = (scores.amax(-1, keepdim=True) - scores).where(p > 0, 0.0)
    return p * (below * U + gamma(p.shape[-1] + 16))


def _layer_norm(
    result: Tensor, x: Tensor, shape: Any, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    scale = (x.var(-1, keepdim=True, correction=0) + eps).rsqrt() * weight.abs()
    centred = (x - x.mean(-1, keepdim=True)).abs()
    # two sums, then a difference, division, eps, root, reciprocal and products
    return gamma(x.shape[-1] + 8) * (x.abs().mean(-1, keepdim=True) + centred) * scale + U * result


def _angle(result: Tensor, angle: Tensor) -> Tensor:
    # A frequency as a float32 power is off by some 32 u (an exponent rounded to u, times
    # ln(base)), and a library's cosine by 2 u.
    return angle * 32 * U + 2 * U


def _gelu(result: Tensor, x: Tensor, **kwargs: Any) -> Tensor:
    return 4 * U * x  # stock code adds 1 and an error function near -1


_ERRORS: dict[str, Callable[..., Tensor]] = {
    **dict.fromkeys(("add", "radd", "sub", "rsub", "mul", "rmul"), _elementwise),
    **dict.fromkeys(("div", "truediv", "rtruediv", "rdiv"), _elementwise),
    "pow": _rounded(4),
    "rsqrt": _rounded(4),
    "sqrt": _rounded(2),
    "tanh": _rounded(4),
    "silu": _rounded(8),  # an exponential, an addition, a division
    "gelu": _gelu,
    "cos": _angle,
    "sin": _angle,
    "mean": _mean,
    "sum": _sum,
    "linear": _linear,
    "matmul": _matmul,
    "addmm": _addmm,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
}
