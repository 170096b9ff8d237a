"""Elementwise functions of the contract: the operations of csrc/contract.h, one array operation
each.

Every `+ - * /` rounds once to float32 and every `fma` once. Constants are float32 values in
hexadecimal, so that no decimal conversion stands between the two sources.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layercast.kernels.reference.arithmetic import NAN, Float32, fma

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


def _polynomial(coefficients: list[np.float32], x: Float32) -> Float32:
    p = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        p = fma(p, x, coefficient)
    return p


def _split_exp(x: Float32) -> tuple[Float32, Float32, NDArray[np.int32]]:
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


def silu(x: Float32) -> Float32:
    """Sigmoid-weighted `x / (1 + e**-x)`, by e**-|x|; the power of two comes last."""
    with np.errstate(all="ignore"):
        limit = np.float32(120)
        clamped = np.where(x < -limit, -limit, x)
        magnitude = np.abs(clamped)
        magnitude = np.where(magnitude > limit, limit, magnitude)
        significand, low, exponent = _split_exp(-magnitude)
        power = _scale_by_power(significand, exponent)
        denominator = ONE + power
        denominator_low = power - (denominator - ONE)
        numerator = clamped * significand
        numerator_low = fma(clamped, significand, -numerator) + clamped * low
        quotient = numerator / denominator
        remainder = fma(-quotient, denominator, numerator) + (
            numerator_low - quotient * denominator_low
        )
        negative = _scale_by_power(quotient + remainder / denominator, exponent)
        return np.where(clamped < 0, negative, clamped / denominator)
