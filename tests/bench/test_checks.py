"""Contract under test: one wrong bit, or an error beyond what roundings make, is refused."""

import pytest
import torch
from fakes import quiet_workspace

from layercast import ops
from layercast.bench.case import Variant
from layercast.bench.checks import (
    linear_error_bound,
    relative_errors,
    require_bits,
    require_error_bound,
)
from layercast.errors import GuaranteeError
from layercast.kernels import reference


def test_equal_bits_pass_and_are_counted():
    x = torch.tensor([1.0, -0.0, float("nan")])
    assert require_bits("linear", x, x.clone()) == 3


@pytest.mark.parametrize(
    ("got", "defined"),
    [
        (torch.tensor([1.0, 2.0]), torch.nextafter(torch.tensor([1.0, 2.0]), torch.tensor(9.0))),
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (torch.tensor([float("nan")]), torch.tensor([1.0])),
        (torch.tensor([1.0]), torch.tensor([1.0, 1.0])),
        (torch.tensor([1.0], dtype=torch.float64), torch.tensor([1.0])),
        (torch.tensor([]), torch.tensor([])),
        (torch.tensor([3]), torch.tensor([4])),
    ],
    ids=["one ulp", "sign of zero", "NaN", "shape", "dtype", "nothing", "index"],
)
def test_any_other_result_is_refused(got, defined):
    with pytest.raises(GuaranteeError, match="linear"):
        require_bits("linear", got, defined)


def _inputs(M=3, N=5, K=1000):
    random = torch.Generator().manual_seed(0)
    # Wide magnitudes: cancellation makes errors as large as they get.
    x = torch.randn(M, K, generator=random) * 10.0 ** torch.randint(-3, 4, (M, K))
    weight = torch.randn(N, K, generator=random).bfloat16()
    return x, weight


def test_the_contract_keeps_its_error_bound_and_a_lesser_precision_does_not():
    x, weight = _inputs()
    exact, bound = x.double() @ weight.double().T, linear_error_bound(x, weight)
    require_error_bound("linear", reference.linear(x, weight, None), exact, bound)
    rounded = torch.nn.functional.linear(x.bfloat16(), weight).float()
    with pytest.raises(GuaranteeError, match="bound"):
        require_error_bound("linear", rounded, exact, bound)
    with pytest.raises(GuaranteeError, match="nan"):
        require_error_bound("linear", torch.full_like(rounded, float("nan")), exact, bound)


def test_the_bound_counts_the_roundings_of_the_longest_path():
    # K = 1000: shards of 125, a chunk of 64, two chunks, three levels of the tree: 69 roundings.
    x, weight = torch.ones(1, 1000), torch.ones(1, 1000)
    n = 69 * 2.0**-24
    assert linear_error_bound(x, weight).item() == pytest.approx(1000 * n / (1 - n), rel=1e-12)


def test_relative_error_is_a_ratio_of_norms():
    exact = torch.tensor([3.0, 4.0], dtype=torch.float64)
    # A distance of 0.5 from a vector of length 5.
    results = {Variant.LAYERCAST: torch.tensor([3.0, 4.5])}
    assert relative_errors(results, exact) == {Variant.LAYERCAST: 0.1}


def _wrong(result):
    """The last value one ulp up."""
    wrong = result.clone()
    wrong.view(-1)[-1] = torch.nextafter(wrong.view(-1)[-1], torch.tensor(float("inf")))
    return wrong


@pytest.mark.parametrize("operation", ["linear", "attention", "rms_norm", "log_softmax"])
def test_an_operation_with_one_wrong_bit_is_refused_before_it_is_timed(operation, monkeypatch):
    from test_cases import SMALL

    from layercast.bench.registry import prepare

    case = next(case for case in SMALL if case.operation == operation)
    right = getattr(ops, operation)
    with torch.inference_mode():
        assert prepare(case, quiet_workspace()).check()["values_equal_to_definition"] > 0
        monkeypatch.setattr(ops, operation, lambda *args, **named: _wrong(right(*args, **named)))
        with pytest.raises(GuaranteeError, match=operation):
            prepare(case, quiet_workspace()).check()
