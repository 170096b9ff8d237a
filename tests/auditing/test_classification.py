"""Contract under test: an operation is called exact by its arguments, and where it is, it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from layercast import ops
from layercast.auditing.classification import classify

X = torch.tensor([[1.5, -2.25, 3.0], [0.1, 0.2, -0.3]])
Y = torch.tensor([[0.7, 3.0, -1.0], [5.0, 0.3, 2.0]])
N = torch.tensor([[3, 1, 2], [0, 5, 4]])
HALF = X.to(torch.bfloat16)
TWICE = torch.tensor([0, 0])
ONCE = torch.tensor([1, 0])


class Verdicts(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.kinds = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        names = [argument.name for argument in func._schema.arguments]
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        self.kinds.append(classify(func, arguments).kind)
        return func(*args, **kwargs)


def verdict(call):
    """The worst verdict of the operations that a call dispatches."""
    with torch.no_grad(), Verdicts() as verdicts:
        call()
    order = ["exact", "ours", "rounding", "uncovered"]
    return max(verdicts.kinds, key=order.index)


CASES = {
    "exact": [
        lambda: X + Y,
        lambda: X + 0.1,
        lambda: 1.0 - X,
        lambda: torch.add(X, Y, alpha=1.0),
        lambda: torch.add(N, N, alpha=3),
        lambda: X.clone().mul_(Y),
        lambda: torch.mul(X, Y, out=torch.empty(2, 3)),
        lambda: X * HALF,  # upcast exactly, multiplied in float32
        lambda: X / Y,
        lambda: X.square(),
        lambda: X**2,
        lambda: X**2.0,
        lambda: N**3,
        lambda: N // 2,
        lambda: N.sum(),
        lambda: N.cumsum(0),
        lambda: N @ N.T,
        lambda: N.bool().sum(-1),
        lambda: X.amax(-1),
        lambda: X.max(-1),
        lambda: X.argmax(),
        lambda: X.clamp(-1.0, 1.0),
        lambda: torch.relu(X),
        lambda: X.round(),
        lambda: X.to(torch.float64),
        lambda: X.double().float(),
        lambda: N.float(),
        lambda: X.long(),
        lambda: HALF.float(),
        lambda: torch.sort(X, stable=True),
        lambda: torch.arange(0.0, 5.0),
        lambda: X[:, ONCE],
        lambda: X.clone().index_put_((ONCE,), Y),
        lambda: X.clone().index_put_((N > 2,), torch.tensor(0.0)),
        lambda: X.clone().index_copy_(0, ONCE, Y),
        lambda: X.clone().scatter_(1, N % 3, 2.0),
        lambda: X.clone().scatter_(1, torch.tensor([[0, 2], [1, 0]]), Y),
        lambda: torch.cat((X, Y)).view(-1).flip(0).contiguous(),
        lambda: torch.where(X > Y, X, Y),
        lambda: torch._foreach_mul([X, Y], [Y, X]),
        lambda: torch._foreach_add_([X.clone()], [Y]),
        lambda: torch.nn.functional.embedding(ONCE, X),
        lambda: torch.nn.functional.pad(X, (1, 1)),
        lambda: bool((X > Y).any()),
    ],
    "ours": [lambda: ops.softmax(X), lambda: ops.linear(X, HALF)],
    "rounding": [
        lambda: X.to(torch.bfloat16),
        lambda: X.half(),
        lambda: torch.empty(2, 3, dtype=torch.float16).copy_(X),
    ],
    "uncovered": [
        lambda: torch.add(X, Y, alpha=0.5),
        lambda: torch.sub(X, Y, alpha=2),
        lambda: torch.rsub(X, Y, alpha=2),
        lambda: X.clone().add_(Y, alpha=0.5),
        lambda: torch.add(X, Y, alpha=0.5, out=torch.empty(2, 3)),
        lambda: torch._foreach_add_([X.clone()], [Y], alpha=0.5),
        lambda: X / 3.0,
        lambda: X / 4,
        lambda: X.clone().div_(3.0),
        lambda: X / torch.tensor(3.0),
        lambda: torch._foreach_div([X], 3.0),
        lambda: X // Y,
        lambda: torch.div(X, Y, rounding_mode="floor"),
        lambda: X % Y,
        lambda: X.sum(),
        lambda: X.mean(-1),
        lambda: X.cumsum(0),
        lambda: N.float().prod(),
        lambda: N.sum(dtype=torch.float32),
        lambda: X @ Y.T,
        lambda: torch.addmm(X[:, :2], X, Y.T),
        lambda: torch.addcmul(X, X, Y),
        lambda: torch.lerp(X, Y, 0.5),
        lambda: X.abs().sqrt(),
        lambda: X.abs().rsqrt(),
        lambda: X.reciprocal(),
        lambda: X.exp(),
        lambda: torch._foreach_exp_([X.clone()]),
        lambda: torch._foreach_sqrt([X.abs()]),
        lambda: X**3,
        lambda: X.abs() ** 0.5,
        lambda: 2.0**X,
        lambda: torch.softmax(X, -1),
        lambda: torch.sigmoid(X),
        lambda: torch.nn.functional.silu(X),
        lambda: torch.nn.functional.layer_norm(X, (3,)),
        lambda: torch.nn.functional.scaled_dot_product_attention(X[None], X[None], X[None]),
        lambda: HALF * HALF,
        lambda: HALF + 1.0,
        lambda: torch.add(X, Y, out=torch.empty(2, 3, dtype=torch.bfloat16)),
        lambda: X.to(torch.float8_e4m3fn),
        lambda: torch.tensor([300.0]).to(torch.int8),
        lambda: torch.tensor([float("nan")]).to(torch.int64),
        lambda: X.to(torch.complex64).abs(),
        lambda: X * 1j,
        lambda: torch.sort(X),
        lambda: torch.topk(X, 2),
        lambda: torch.arange(0.0, 1.0, 0.1),
        lambda: torch.linspace(0.0, 1.0, 5),
        lambda: X.round(decimals=1),
        lambda: X.clone().index_put_((TWICE,), Y),
        lambda: X.clone().index_put_((TWICE,), Y, accumulate=True),
        lambda: X.clone().index_put_((torch.tensor([1, -1]),), Y),
        lambda: X.clone().index_copy_(0, TWICE, Y),
        lambda: X.clone().index_add_(0, ONCE, Y),
        lambda: X.clone().scatter_(1, torch.tensor([[0, 0], [1, 0]]), Y),
        lambda: X.clone().scatter_add_(1, N % 3, Y),
        lambda: X.clone().scatter_reduce_(1, N % 3, Y, "sum"),
        lambda: torch.rand(3),
        lambda: torch.multinomial(X.abs(), 1),
        lambda: X.max().item(),
        lambda: X.to_sparse(),
        lambda: torch.ops.aten.add.Tensor(X.to_sparse(), X.to_sparse()),
        lambda: torch.nn.functional.dropout(X, 0.5),
    ],
}


@pytest.mark.parametrize(
    ("kind", "number"),
    [(kind, number) for kind, calls in CASES.items() for number in range(len(calls))],
)
def test_verdict_of_a_call(kind, number):
    assert verdict(CASES[kind][number]) == kind


BITS = st.integers(0, 2**32 - 1)


@given(st.lists(st.tuples(BITS, BITS), min_size=1, max_size=64))
def test_arithmetic_called_exact_is_correctly_rounded(pairs):
    """Against binary64, whose double rounding of these operations is innocuous."""
    a, b = np.array(pairs, dtype=np.uint32).view(np.float32).T.copy()
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        expected = {
            "add": (x + y, wide_a + wide_b),
            "sub": (x - y, wide_a - wide_b),
            "rsub": (0.1 - x, np.float64(np.float32(0.1)) - wide_a),
            "mul": (x * y, wide_a * wide_b),
            "mul by a number": (x * 0.1, wide_a * np.float64(np.float32(0.1))),
            "div": (x / y, wide_a / wide_b),
            "square": (x.square(), wide_a * wide_a),
        }
        for name, (got, wide) in expected.items():
            want = wide.astype(np.float32)
            numbers = ~np.isnan(want)
            same = got.numpy().view(np.uint32)[numbers] == want.view(np.uint32)[numbers]
            assert same.all(), name
            assert np.isnan(got.numpy()[~numbers]).all(), name
