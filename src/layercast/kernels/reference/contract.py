"""Elementwise functions of the contract: the operations of csrc/contract.h, one array operation
each.

Every `+ - * /` rounds once to float32 and every `fma` once. Constants are float32 values in
hexadecimal, so that no decimal conversion stands between the two sources.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from layercast.kernels.reference.arithmetic import NAN, Float32, fma, two_sum

ONE = np.float32(1)
INFINITY = np.float32(np.inf)


def _constant(text: str) -> np.float32:
    value = float.fromhex(text)
    if float(np.float32(value)) != value:
        raise ValueError(f"{text} is not a float32")
    return np.float32(value)


LOG2_E = _constant("0x1.715476p+0")
LOG_2_HIGH = _constant("0x1.62e43p-1")
LOG_2_LOW = _constant("-0x1.05c61p-29")

# Highest degree first.
EXP = [
    _constant(text)
    for text in (
        "0x1.9f085ap-13",
        "0x1.6d8d52p-10",
        "0x1.111272p-7",
        "0x1.55548ep-5",
        "0x1.555554p-3",
        "0x1p-1",
        "0x1p0",
    )
]
LOG = [
    _constant(text)
    for text in (
        "-0x1.081048p-3",
        "0x1.1e714ap-3",
        "-0x1.f30ccep-4",
        "0x1.1ed522p-3",
        "-0x1.559dfp-3",
        "0x1.99d044p-3",
        "-0x1.fffefp-3",
        "0x1.555506p-2",
        "-0x1p-1",
    )
]
TANH = [
    _constant(text)
    for text in (
        "-0x1.cf4c4ep-16",
        "0x1.fa555ap-13",
        "-0x1.15207p-10",
        "0x1.aed54ap-9",
        "-0x1.1d73e2p-7",
        "0x1.65899ep-6",
        "-0x1.ba09fp-5",
        "0x1.1110acp-3",
        "-0x1.555554p-2",
    )
]

GELU = [
    _constant(text)
    for text in (
        "0x1.e91ea6p-17",
        "0x1.10d7d8p-14",
        "0x1.21f342p-16",
        "-0x1.90275p-12",
        "-0x1.6bf144p-12",
        "0x1.1fd09cp-9",
        "0x1.8ce108p-10",
        "-0x1.145848p-6",
        "0x1.b3dd02p-6",
        "0x1.871bbp-7",
        "-0x1.e6ca52p-4",
    )
]
GELU_HIGH, GELU_LOW = _constant("0x1.a5e57cp-2"), _constant("0x1.67c504p-28")
# 2 sqrt(2 / pi) and 0.044715 times it, each as a sum of two.
LINEAR_HIGH, LINEAR_LOW = _constant("0x1.988454p+0"), _constant("-0x1.857936p-25")
CUBIC_HIGH, CUBIC_LOW = _constant("0x1.2444f2p-4"), _constant("0x1.49b16ap-29")

# Beyond these, results no longer change or are zero.
SILU_LIMIT, GELU_LIMIT, GELU_TANH_LIMIT = np.float32(120), np.float32(14.6), np.float32(11.5)


def _polynomial(coefficients: list[np.float32], x: Float32) -> Float32:
    p = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        p = fma(p, x, coefficient)
    return p


SplitExp = tuple[Float32, Float32, NDArray[np.int32]]


def _split_exp(x: Float32) -> SplitExp:
    """e**x as significand, its rounding error and exponent of two, for |x| <= 160 or NaN."""
    count = np.rint(x * LOG2_E)
    r = fma(count, -LOG_2_HIGH, x)
    r = fma(count, -LOG_2_LOW, r)
    p = _polynomial(EXP, r)
    significand = fma(p, r, ONE)
    low = fma(p, r, ONE - significand)
    return significand, low, np.where(np.isnan(count), 0, count).astype(np.int32)


def _scale_by_power(v: Float32, n: NDArray[np.int32]) -> Float32:
    """`v * 2**n`, in two exact powers so that only a subnormal result rounds."""
    half = n >> 1
    return (v * _power_of_two(half)) * _power_of_two(n - half)


def _power_of_two(n: NDArray[np.int32]) -> Float32:
    return ((n + 127) << 23).astype(np.int32).view(np.float32)


def exp(x: Float32) -> Float32:
    """e**x: range reduction by multiples of log 2, a polynomial of degree 7, two powers of two."""
    with np.errstate(all="ignore"):
        clamped = np.where(x > np.float32(89.5), np.float32(89.5), x)
        clamped = np.where(clamped < np.float32(-105), np.float32(-105), clamped)
        significand, _, exponent = _split_exp(clamped)
        return np.where(np.isnan(x), x, _scale_by_power(significand, exponent))


def log(x: Float32) -> Float32:
    """Natural logarithm: x = m * 2**k with m in [2/3, 4/3), a polynomial in m - 1, plus k log 2."""
    with np.errstate(all="ignore"):
        subnormal = x < np.float32(2.0**-126)
        scaled = np.where(subnormal, x * np.float32(2.0**23), x)
        bits = scaled.view(np.int32).astype(np.int64)
        shifted = ((bits - 0x3F2AAAAB) >> 23) << 23
        m = (bits - shifted).astype(np.int32).view(np.float32)
        k = (shifted >> 23).astype(np.float32) - np.where(subnormal, 23, 0).astype(np.float32)
        f = m - ONE
        p = _polynomial(LOG, f)
        p = fma(p, f * f, f)
        p = fma(k, LOG_2_LOW, p)
        p = fma(k, LOG_2_HIGH, p)
        p = np.where(x == INFINITY, x, p)
        p = np.where(x == 0, -INFINITY, p)
        return np.where(x >= 0, p, NAN)


def tanh(x: Float32) -> Float32:
    """Hyperbolic tangent: an odd polynomial up to 1, 1 - 2 / (e**2|x| + 1) beyond."""
    with np.errstate(all="ignore"):
        magnitude = np.abs(x)
        square = x * x
        near = fma(_polynomial(TANH, square) * square, magnitude, magnitude)
        far = ONE - np.float32(2) / (exp(magnitude + magnitude) + ONE)
        return np.where(np.isnan(x), x, np.copysign(np.where(magnitude <= ONE, near, far), x))


def _weigh_by_sigmoid(value: Float32, x: Float32, e: SplitExp) -> Float32:
    """Value / (1 + e) for x >= 0, value e / (1 + e) below; the power of two of e comes last."""
    significand, low, exponent = e
    power = _scale_by_power(significand, exponent)
    denominator = ONE + power
    denominator_low = power - (denominator - ONE)
    numerator = value * significand
    numerator_low = fma(value, significand, -numerator) + value * low
    quotient = numerator / denominator
    remainder = fma(-quotient, denominator, numerator) + (
        numerator_low - quotient * denominator_low
    )
    negative = _scale_by_power(quotient + remainder / denominator, exponent)
    return np.where(x < 0, negative, value / denominator)


def silu(x: Float32) -> Float32:
    """Sigmoid-weighted `x / (1 + e**-x)`, by e**-|x|."""
    with np.errstate(all="ignore"):
        clamped = np.where(x < -SILU_LIMIT, -SILU_LIMIT, x)
        magnitude = np.abs(clamped)
        magnitude = np.where(magnitude > SILU_LIMIT, SILU_LIMIT, magnitude)
        return _weigh_by_sigmoid(clamped, clamped, _split_exp(-magnitude))


def sigmoid(x: Float32) -> Float32:
    """Logistic function `1 / (1 + e**-x)`, by e**-|x|."""
    with np.errstate(all="ignore"):
        magnitude: Float32 = np.abs(x)
        magnitude = np.where(magnitude > SILU_LIMIT, SILU_LIMIT, magnitude)
        return _weigh_by_sigmoid(np.ones_like(x), x, _split_exp(-magnitude))


def _two_product(a: Float32, b: Any) -> tuple[Float32, Float32]:
    product = a * b
    return product, fma(a, b, -product)


def _split_exp_of_negative(high: Float32, low: Float32) -> SplitExp:
    """e**-(high + low) as `_split_exp` gives it."""
    significand, significand_low, exponent = _split_exp(-high)
    return significand, significand_low - significand * low, exponent


def gelu(x: Float32) -> Float32:
    """Gaussian error linear unit, x Phi(x).

    With t = |x|, 1 - Phi(t) = e**(-t**2 / 2) R(t); (1 + 0.796875 t) R(t) is a polynomial in
    (t - 3) / (t + 3).
    """
    with np.errstate(all="ignore"):
        t: Float32 = np.abs(x)
        t = np.where(t > GELU_LIMIT, GELU_LIMIT, t)
        u = (t - np.float32(3)) / (t + np.float32(3))
        p = _polynomial(GELU, u)
        numerator = fma(p, u, GELU_HIGH)
        numerator_low = fma(p, u, GELU_HIGH - numerator) + GELU_LOW
        slope, slope_low = _two_product(t, np.float32(0.796875))
        d, d_low = two_sum(ONE, slope)
        r = numerator / d
        r_low = (fma(-r, d, numerator) + (numerator_low - r * (d_low + slope_low))) / d
        square, square_low = _two_product(t, t)
        half = np.float32(0.5)
        significand, low, exponent = _split_exp_of_negative(half * square, half * square_low)

        tr, tr_low = _two_product(t, r)
        tail, tail_low = _two_product(tr, significand)
        tail_low = tail_low + ((tr_low + t * r_low) * significand + tr * low)
        negative = -_scale_by_power(tail + tail_low, exponent)

        product, product_low = _two_product(r, significand)
        q = _scale_by_power(product, exponent)
        q_low = _scale_by_power(product_low + (r_low * significand + r * low), exponent)
        phi = ONE - q
        phi_low = ((ONE - phi) - q) - q_low
        positive = fma(x, phi, x * phi_low)
        return np.where(x < 0, negative, np.where(x > GELU_LIMIT, x, positive))


def gelu_tanh(x: Float32) -> Float32:
    """Return x / (1 + e**(-2 z)), z = sqrt(2 / pi) (x + 0.044715 x**3), 2 z as a sum of two."""
    with np.errstate(all="ignore"):
        clamped = np.where(x < -GELU_TANH_LIMIT, -GELU_TANH_LIMIT, x)
        t: Float32 = np.abs(clamped)
        t = np.where(t > GELU_TANH_LIMIT, GELU_TANH_LIMIT, t)
        square, square_low = _two_product(t, t)
        cubic, cubic_low = _two_product(square, CUBIC_HIGH)
        cubic_low = cubic_low + (square_low * CUBIC_HIGH + square * CUBIC_LOW)
        factor, factor_low = two_sum(LINEAR_HIGH, cubic)
        factor_low = factor_low + (cubic_low + LINEAR_LOW)
        twice_z, twice_z_low = _two_product(t, factor)
        return _weigh_by_sigmoid(
            clamped, clamped, _split_exp_of_negative(twice_z, twice_z_low + t * factor_low)
        )
