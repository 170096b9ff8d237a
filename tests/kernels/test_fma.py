"""Contract under test: the emulated fused multiply-add rounds once, on any float32."""

from fractions import Fraction

import numpy as np
import pytest

from layercast.kernels.reference.arithmetic import NAN, canonical, fma

U32 = np.uint32


def exact_rounding(value: Fraction) -> float:
    """The float32 nearest to a rational, ties to even, by integer arithmetic alone."""
    if value == 0:
        return 0.0
    magnitude, exponent = abs(value), -149
    # At most 24 bits before the point, and no exponent below a subnormal's.
    while magnitude / Fraction(2) ** exponent >= 2**24:
        exponent += 1
    scaled = magnitude / Fraction(2) ** exponent
    whole, rest = divmod(scaled.numerator, scaled.denominator)
    twice = 2 * rest
    if twice > scaled.denominator or (twice == scaled.denominator and whole % 2):
        whole += 1
    result = Fraction(whole) * Fraction(2) ** exponent
    sign = -1.0 if value < 0 else 1.0
    return sign * (float("inf") if result >= Fraction(2) ** 128 else float(result))


def adversarial(rng, count):
    """Finite patterns: uniform, few significant bits (ties), all ones, subnormal."""
    bits = rng.integers(0, 2**32, count, dtype=U32)
    kind = rng.integers(0, 4, count)
    bits = np.where(kind == 1, bits & U32(0xFFF00000), bits)
    bits = np.where(kind == 2, bits | U32(0x007FFFFF), bits)
    bits = np.where(kind == 3, bits & U32(0x807FFFFF), bits)
    values = bits.astype(U32).view(np.float32)
    return np.where(np.isfinite(values), values, np.float32(1.5))


@pytest.fixture(scope="module")
def triples():
    rng = np.random.default_rng(20)
    a, b, c = (adversarial(rng, 3000) for _ in range(3))
    # Addends about half an ulp of the product away from a tie, where rounding twice goes wrong.
    with np.errstate(all="ignore"):
        near = (a * b) * np.exp2(rng.integers(-30, 30, 3000)).astype(np.float32)
    near = np.where(np.isfinite(near), near, np.float32(1))
    return np.tile(a, 2), np.tile(b, 2), np.concatenate([c, near])


def test_fma_rounds_once(triples):
    actual = fma(*triples)
    for i, (a, b, c) in enumerate(zip(*(x.tolist() for x in triples), strict=True)):
        expected = exact_rounding(Fraction(a) * Fraction(b) + Fraction(c))
        assert actual[i] == expected, (a.hex(), b.hex(), c.hex())


def test_rounding_twice_is_caught(triples):
    """The control: float64 arithmetic rounded again is wrong on some of the same triples."""
    a, b, c = (x.astype(np.float64) for x in triples)
    with np.errstate(all="ignore"):
        naive = (a * b + c).astype(np.float32)
    assert (naive != fma(*triples)).any()


def test_a_known_double_rounding():
    # (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24 is a tie, downwards to even; 2^-60 more lies above it, but
    # float64 has no place for it and would round down all the same.
    a, c = np.float32(1 + 2.0**-12), np.float32(2.0**-60)
    assert fma(a, a, np.float32(0)) == np.float32(1 + 2.0**-11)
    assert fma(a, a, c) == np.float32(1 + 2.0**-11 + 2.0**-23)
    assert np.float32(float(a) * float(a) + float(c)) == np.float32(1 + 2.0**-11)


@pytest.mark.parametrize(
    ("a", "b", "c", "expected"),
    [
        (0.0, 1.0, -0.0, 0.0),
        (-0.0, 1.0, -0.0, -0.0),
        (-0.0, 1.0, 0.0, 0.0),
        (1.0, 1.0, -1.0, 0.0),
        (-1e-30, 1e-30, 0.0, -0.0),
        (1e38, 10.0, 0.0, float("inf")),
        (1e38, 10.0, -float("inf"), -float("inf")),
        (1e-30, 1e-15, 0.0, 1e-45),
    ],
)
def test_signed_zeros_overflow_and_underflow(a, b, c, expected):
    result = fma(np.float32(a), np.float32(b), np.float32(c))
    assert result.view(U32) == np.float32(expected).view(U32)


def test_nan_comes_out_as_nan_and_canonical_gives_it_one_pattern():
    inf, nan = np.float32(np.inf), np.float32(np.nan)
    values = np.array([fma(inf, np.float32(0), nan), fma(inf, np.float32(1), -inf), -nan, NAN])
    assert np.isnan(values).all()
    assert (canonical(values).view(U32) == 0x7FC00000).all()
