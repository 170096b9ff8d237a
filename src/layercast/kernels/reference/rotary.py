"""`rotary_table` and `rotary`: binary64 for the table, binary32 for its application.

The table needs no fused operation: sums and products are made exact by their error terms (Knuth's
TwoSum, Dekker's product), in `+ - * /` of float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layercast.kernels.reference.arithmetic import Float32, canonical, two_sum
from layercast.kernels.reference.tensors import integers, to_tensor, upcast


def _hex(*texts: str) -> tuple[float, ...]:
    return tuple(float.fromhex(text) for text in texts)


LOG_2_HIGH, LOG_2_LOW, INVERSE_LOG_2 = _hex(
    "0x1.62e42fefa3p-1", "0x1.3de6af278ece6p-42", "0x1.71547652b82fep+0"
)
TWO_OVER_PI, *HALF_PI = _hex(
    "0x1.45f306dc9c883p-1",
    "0x1.921fbp+0",
    "0x1.5110bp-22",
    "0x1.184698p-44",
    "0x1.3198a2e037073p-69",
)
SQRT_2 = float.fromhex("0x1.6a09e667f3bcdp+0")

# Series, lowest degree first: 2 / (2 n + 3); 1 / n! from n = 2; the signed ones of sine and cosine.
# Each is the float64 nearest to its value.
ATANH = [2 / n for n in range(3, 26, 2)]
EXP = [1 / math.factorial(n) for n in range(2, 15)]
SIN = [(-1) ** n / math.factorial(2 * n + 1) for n in range(1, 9)]
COS = [(-1) ** n / math.factorial(2 * n) for n in range(2, 10)]


def _split(a: Any) -> tuple[Any, Any]:
    scaled = 134217729.0 * a
    high = scaled - (scaled - a)
    return high, a - high


def _two_product(a: Any, b: Any) -> tuple[Any, Any]:
    product = a * b
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _polynomial(x: Any, coefficients: Sequence[float]) -> Any:
    p: Any = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        p = p * x + coefficient
    return p


def _log(x: float) -> tuple[float, float]:
    """log(x) as a sum of two float64: 2 atanh((m - 1) / (m + 1)) with x = m * 2**exponent."""
    m, exponent = math.frexp(x)
    m, exponent = m * 2, exponent - 1
    if m > SQRT_2:
        m, exponent = m * 0.5, exponent + 1
    numerator = m - 1.0
    denominator, denominator_low = two_sum(m, 1.0)
    z = numerator / denominator
    back, back_low = _two_product(z, denominator)
    z_low = (((numerator - back) - back_low) - z * denominator_low) / denominator
    square = z * z
    tail = z * square * _polynomial(square, ATANH)
    total, total_low = two_sum(exponent * LOG_2_HIGH, 2.0 * z)
    high, low = two_sum(total, total_low + (exponent * LOG_2_LOW + (2.0 * z_low + tail)))
    return high, low


def _exp_of_negative(high: float, low: float) -> float:
    """e**-(high + low)."""
    n = math.floor(high * INVERSE_LOG_2 + 0.5)
    r, r_low = two_sum(n * LOG_2_HIGH - high, n * LOG_2_LOW - low)
    rest = (r_low + r_low * r) + (r * r) * _polynomial(r, EXP)
    total, total_low = two_sum(1.0, r)
    return math.ldexp(total + (total_low + rest), -n)


def frequencies(base: float, head_dim: int) -> Tensor:
    """`base ** (-2 i / head_dim)` for i in 0..head_dim / 2, float64."""
    log_base, log_base_low = _log(base)
    values = []
    for i in range(head_dim // 2):
        product, product_low = _two_product(log_base, float(2 * i))
        product_low = product_low + log_base_low * float(2 * i)
        quotient = product / head_dim
        back, back_low = _two_product(quotient, float(head_dim))
        low = (((product - back) - back_low) + product_low) / head_dim
        values.append(_exp_of_negative(quotient, low))
    return torch.tensor(values, dtype=torch.float64)


def _sin_cos(
    position: NDArray[np.float64], frequency: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    angle, angle_low = _two_product(position, frequency)
    n = np.floor(angle * TWO_OVER_PI + 0.5)
    first, first_low = two_sum(angle - n * HALF_PI[0], -(n * HALF_PI[1]))
    second, second_low = two_sum(first, -(n * HALF_PI[2]))
    r = second + (((second_low + first_low) + angle_low) - n * HALF_PI[3])
    square = r * r
    sin = r + r * square * _polynomial(square, SIN)
    cos = 1.0 - (0.5 * square - square * square * _polynomial(square, COS))
    quadrant = n.astype(np.int64) & 3
    return (
        np.choose(quadrant, [sin, cos, -sin, -cos]),
        np.choose(quadrant, [cos, -sin, -cos, sin]),
    )


def rotary_table(
    position_ids: Tensor, inv_freq: Tensor, attention_scaling: float
) -> tuple[Tensor, Tensor]:
    """See `layercast.ops.rotary_table`."""
    positions = integers(position_ids).astype(np.float64)[..., np.newaxis]
    sin, cos = _sin_cos(positions, inv_freq.numpy())
    tables = [(table * attention_scaling).astype(np.float32) for table in (cos, sin)]
    cos_table, sin_table = (to_tensor(np.concatenate([t, t], axis=-1)) for t in tables)
    return cos_table, sin_table


def _rotate(x: Float32, cos: Float32, sin: Float32) -> Float32:
    R = cos.shape[-1]
    half = R // 2
    low, high = x[..., :half], x[..., half:R]
    cos, sin = cos[:, np.newaxis], sin[:, np.newaxis]
    with np.errstate(all="ignore"):
        first = low * cos[..., :half] - high * sin[..., :half]
        second = high * cos[..., half:] + low * sin[..., half:]
    return canonical(np.concatenate([first, second, x[..., R:]], axis=-1))


def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """See `layercast.ops.rotary`."""
    c, s = upcast(cos), upcast(sin)
    return to_tensor(_rotate(upcast(q), c, s)), to_tensor(_rotate(upcast(k), c, s))
