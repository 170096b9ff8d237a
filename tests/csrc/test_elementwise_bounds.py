"""Contract under test: exp, log, tanh within 1 ulp, composed functions within 2, everywhere."""

import pytest
from cpp_programs import fields, output_of

BOUNDS = {
    "exp": 1.0,
    "log": 1.0,
    "tanh": 1.0,
    "silu": 2.0,
    "sigmoid": 2.0,
    "gelu": 2.0,
    "gelu_tanh": 2.0,
}
EVERY = pytest.mark.parametrize("function", BOUNDS)


def check(programs, function, stride):
    found = fields(output_of(programs / "exhaustive", function, str(stride)))
    assert float(found["max_ulp"]) <= BOUNDS[function], found
    assert found["wrong_specials"] == "0", found
    # The control: rounding alone errs by half an ulp, so a smaller maximum was not measured.
    assert float(found["max_ulp"]) > 0.5


@EVERY
def test_bounds_hold_on_a_dense_sample(programs, function):
    check(programs, function, 257)


@pytest.mark.slow
@EVERY
def test_bounds_hold_on_every_float32(programs, function):
    check(programs, function, 1)
