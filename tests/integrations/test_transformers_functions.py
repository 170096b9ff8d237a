"""Contract under test: functions that a model's own code calls are the contract's while it runs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from forward_variants import SEQUENCES, alone, same_bits
from torch import Tensor

import layercast
from layercast import ops
from layercast.integrations.transformers import guard
from layercast.integrations.transformers.functions import TAKEN_OVER, contracted_functions

X = torch.randn((7, 96), generator=torch.Generator().manual_seed(0)) * 4
W = torch.randn((5, 96), generator=torch.Generator().manual_seed(1))
GAIN, SHIFT = (torch.randn(96, generator=torch.Generator().manual_seed(s)) for s in (2, 3))
THREE = torch.tensor(3.0)
# The function, a call of it, and the operation whose bits it must have.
CALLS = {
    "tanh": ([torch.tanh, Tensor.tanh], lambda f: f(X), ops.tanh(X)),
    "sigmoid": ([torch.sigmoid, Tensor.sigmoid], lambda f: f(X), ops.sigmoid(X)),
    "softmax": (
        [torch.softmax, Tensor.softmax, F.softmax],
        lambda f: f(X, dim=-1, dtype=torch.float32),
        ops.softmax(X),
    ),
    "log_softmax": (
        [torch.log_softmax, Tensor.log_softmax, F.log_softmax],
        lambda f: f(X, 1),
        ops.log_softmax(X),
    ),
    "silu": ([F.silu], lambda f: f(X), ops.silu(X)),
    "gelu": ([F.gelu], lambda f: f(X), ops.gelu(X)),
    "linear": ([F.linear], lambda f: f(X, W), ops.linear(X, W)),
    "layer_norm": (
        [F.layer_norm],
        lambda f: f(X, (96,), GAIN, SHIFT, 1e-6),
        ops.layer_norm(X, GAIN, SHIFT, eps=1e-6),
    ),
    "topk": ([torch.topk, Tensor.topk], lambda f: f(X, 3).values, ops.topk(X, 3)[0]),
    "division": (
        [Tensor.div, Tensor.true_divide, torch.div, torch.true_divide],
        lambda f: f(X, 3.0),
        X / THREE.expand(7, 96).contiguous(),
    ),
    "division in place": (
        [Tensor.div_],
        lambda f: f(X.clone(), 3.0),
        X / THREE.expand(7, 96).contiguous(),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_the_operations(name, monkeypatch):
    functions, call, expected = CALLS[name]
    for function in functions:
        with contracted_functions(True):
            assert same_bits(call(function), expected)
    # The control: what the table says is what is called, and only while the mode is on.
    answer = X.new_zeros(1)
    answers = (answer, answer)
    for function in functions:
        monkeypatch.setitem(TAKEN_OVER, function, lambda *args, **kwargs: answer)
    if name == "topk":
        answer = torch.return_types.topk(answers)
    for function in functions:
        with contracted_functions(True):
            assert call(function).numel() == 1
        assert call(function).numel() > 1


def test_every_function_taken_over_is_tested():
    assert {f for functions, _, _ in CALLS.values() for f in functions} == set(TAKEN_OVER)


def test_calls_that_the_contract_does_not_cover_go_where_they_were_meant_to():
    wide, whole = X.double(), torch.arange(6)
    with contracted_functions(True):
        got = (torch.tanh(wide), whole / 2, X.softmax(0), X.topk(2, largest=False).values)
        got += (torch.div(X, 3.0, rounding_mode="floor"), X / X.abs().amax(-1, keepdim=True))
        got += (F.gelu(X, approximate="tanh"), torch.topk(X, 2, dim=0).indices)
    plain = (torch.tanh(wide), whole / 2, X.softmax(0), X.topk(2, largest=False).values)
    plain += (torch.div(X, 3.0, rounding_mode="floor"), X / X.abs().amax(-1, keepdim=True))
    plain += (ops.gelu_tanh(X), torch.topk(X, 2, dim=0).indices)
    for a, b in zip(got, plain, strict=True):
        assert a.dtype is b.dtype
        assert torch.equal(a, b)


def test_a_dtype_or_an_out_argument_is_minded():
    out = torch.empty_like(X)
    with contracted_functions(True):
        assert torch.softmax(X, -1, torch.float64).dtype is torch.float64
        assert F.softmax(X, -1, 3, torch.float64).dtype is torch.float64
        torch.div(X, 3.0, out=out)
    assert torch.equal(out, X / 3.0)


def test_written_operators_arrive_too(monkeypatch):
    seen = []
    for function in (Tensor.div, Tensor.div_):
        monkeypatch.setitem(TAKEN_OVER, function, lambda x, d, f=function: seen.append(f) or x)
    with contracted_functions(True):
        x = X.clone()
        x / 3.0
        x /= 3.0
    assert seen == [Tensor.div, Tensor.div_]


def test_inplace_forms_write_to_their_argument():
    x, y = X.clone(), X.clone()
    with contracted_functions(True):
        x /= 3.0
        F.silu(y, inplace=True)
    assert same_bits(x, X / THREE.expand(7, 96).contiguous())
    assert same_bits(y, ops.silu(X))


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "granite"])
def test_heads_that_call_functions_are_covered_by_them_alone(name, checkpoints, monkeypatch):
    model = layercast.load(checkpoints[name])
    assert layercast.audit(model).covered
    logits = alone(model, SEQUENCES[2])
    monkeypatch.setattr(guard, "calls_functions", lambda model: False)
    report = layercast.audit(model)
    assert not report.covered
    wrong = {finding.operation for finding in report.uncovered}
    assert wrong == (
        {"aten.div.Tensor"} if name == "granite" else {"aten.div.Tensor", "aten.tanh.default"}
    )
    assert torch.allclose(alone(model, SEQUENCES[2]), logits, rtol=1e-5, atol=1e-5)
