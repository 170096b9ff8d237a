"""Contract under test: elementwise functions equal the reference; special values are right."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layercast import ops
from layercast.errors import DtypeError
from layercast.kernels import cpu, reference
from layercast.testing import assert_bitwise_equal, poisoned_empty
from layercast.testing.strategies import draw_values, edge_sizes, seeds

INFINITY = float("inf")
FUNCTIONS = ["exp", "log", "tanh", "silu", "sigmoid", "gelu", "gelu_tanh"]
SPECIALS = [0.0, -0.0, INFINITY, -INFINITY, float("nan"), 1.0, -1.0, 1e-45, -1e-45, 3.4e38, -3.4e38]


@pytest.mark.parametrize("name", FUNCTIONS)
@given(n=edge_sizes(maximum=100), seed=seeds(), kind=st.sampled_from(["bits", "magnitudes"]))
def test_functions_equal_the_reference(name, n, seed, kind):
    x = draw_values(kind, seed, (n,))
    with poisoned_empty():
        assert_bitwise_equal(getattr(cpu, name)(x), getattr(reference, name)(x))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_equal_the_reference_on_a_million_patterns(name):
    patterns = torch.arange(-(2**31), 2**31, 4093, dtype=torch.int64).to(torch.int32)
    x = torch.cat(
        [patterns.view(torch.float32), torch.linspace(-130, 130, 100001), torch.tensor(SPECIALS)]
    )
    assert_bitwise_equal(getattr(cpu, name)(x), getattr(reference, name)(x))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_element_does_not_see_its_neighbours(name):
    function = getattr(cpu, name)
    x = draw_values("magnitudes", 3, (70,))
    whole = function(x)
    for i in range(70):
        assert_bitwise_equal(function(x[i : i + 1]), whole[i : i + 1])
    x[1:] = float("nan")
    assert_bitwise_equal(function(x)[:1], whole[:1])


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        (
            "exp",
            [0.0, -0.0, INFINITY, -INFINITY, 89.0, -104.0],
            [1.0, 1.0, INFINITY, 0.0, INFINITY, 0.0],
        ),
        ("exp", [-103.0], [1e-45]),
        ("log", [1.0, 0.0, -0.0, INFINITY], [0.0, -INFINITY, -INFINITY, INFINITY]),
        ("tanh", [0.0, -0.0, INFINITY, -INFINITY, 20.0], [0.0, -0.0, 1.0, -1.0, 1.0]),
        ("tanh", [1e-45, -1e-40], [1e-45, -1e-40]),
        ("silu", [0.0, -0.0, INFINITY, -INFINITY, 100.0], [0.0, -0.0, INFINITY, -0.0, 100.0]),
        ("sigmoid", [0.0, -0.0, INFINITY, -INFINITY, 20.0, -120.0], [0.5, 0.5, 1.0, 0.0, 1.0, 0.0]),
        ("gelu", [0.0, -0.0, INFINITY, -INFINITY, 100.0], [0.0, -0.0, INFINITY, -0.0, 100.0]),
        ("gelu_tanh", [0.0, -0.0, INFINITY, -INFINITY, 1e38], [0.0, -0.0, INFINITY, -0.0, 1e38]),
    ],
)
def test_special_values(name, x, expected):
    assert_bitwise_equal(getattr(cpu, name)(torch.tensor(x)), torch.tensor(expected))


def test_log_below_zero_is_the_canonical_nan():
    for value in (-1.0, -1e-45, -INFINITY, float("nan")):
        assert cpu.log(torch.tensor([value])).view(torch.int32).item() == 0x7FC00000


def test_silu_keeps_its_precision_where_the_exponential_is_subnormal():
    x = torch.tensor([-90.0, -95.0])
    exact = x.double() / (1 + torch.exp(-x.double()))
    # Relative to the results' own spacing: the second is itself subnormal.
    spacing = torch.tensor([2.0**-147, 2.0**-149], dtype=torch.float64)
    assert ((ops.silu(x).double() - exact).abs() <= 2 * spacing).all()
    assert (ops.silu(x) != 0).all()
    # The control: the textbook form with a flushed or coarse exponential is off by more.
    coarse = x * torch.exp(x) / (1 + torch.exp(x))
    assert ((coarse.double() - exact).abs() > 2 * spacing).any()


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh"])
def test_the_tail_of_gelu_keeps_its_precision(name):
    x = torch.linspace(-9.0, -2.0, 3001)
    wide = x.double()
    if name == "gelu":
        exact = 0.5 * wide * torch.special.erfc(-wide * 0.5**0.5)
        textbook = 0.5 * x * (1 + torch.erf(x * 0.5**0.5))
    else:
        exact = wide / (1 + torch.exp(-((8 / torch.pi) ** 0.5) * (wide + 0.044715 * wide**3)))
        textbook = torch.nn.functional.gelu(x, approximate="tanh")
    # Two ulp of a float32 are at most 2**-22 of it.
    bound = exact.abs() * 2.0**-22
    assert ((getattr(ops, name)(x).double() - exact).abs() <= bound).all()
    # The control: the textbook form cancels.
    assert ((textbook.double() - exact).abs() > bound).any()


def test_strided_input_is_read_as_it_is_indexed():
    x = draw_values("magnitudes", 3, (20, 30)).T[1::2, ::3]
    assert_bitwise_equal(ops.silu(x), ops.silu(x.contiguous()))


def test_wrong_dtype_is_named():
    with pytest.raises(DtypeError, match=r"silu: `x` must be torch.float32, got torch.bfloat16"):
        ops.silu(torch.ones(3).bfloat16())
    with pytest.raises(DtypeError, match=r"tanh: `x` must be torch.float32"):
        ops.tanh(torch.ones(3).double())
