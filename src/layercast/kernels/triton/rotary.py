"""`rotary_table` and `rotary` by Triton."""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from layercast.kernels.cpu.rotary import frequencies as host_frequencies
from layercast.kernels.reference.rotary import COS as COS_TERMS
from layercast.kernels.reference.rotary import HALF_PI as HALF_PI_PARTS
from layercast.kernels.reference.rotary import SIN as SIN_TERMS
from layercast.kernels.reference.rotary import TWO_OVER_PI as TWO_OVER_PI_VALUE
from layercast.kernels.triton import contract
from layercast.kernels.triton.launch import OPTIONS

TWO_OVER_PI = tl.constexpr(TWO_OVER_PI_VALUE)
HALF_PI = tl.constexpr(tuple(HALF_PI_PARTS))
SIN = tl.constexpr(tuple(SIN_TERMS[::-1]))
COS = tl.constexpr(tuple(COS_TERMS[::-1]))
LIMIT = tl.constexpr(2.0**31)

BLOCK = 256


@lru_cache(maxsize=64)
def frequencies(base: float, head_dim: int, device: torch.device) -> Tensor:
    """`base ** (-2 i / head_dim)`, float64, made on the CPU once and kept on the device."""
    return host_frequencies(base, head_dim).to(device)


@triton.jit
def double(value: tl.constexpr):
    """A float64 constant."""
    return tl.full((1,), value, tl.float64)


@triton.jit
def split(a):
    """`a` as a sum of two of 26 bits each (Veltkamp)."""
    scaled = double(134217729.0) * a
    high = scaled - (scaled - a)
    return high, a - high


@triton.jit
def two_product(a, b):
    """`a * b` and its rounding error (Dekker)."""
    product = a * b
    a_high, a_low = split(a)
    b_high, b_low = split(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


@triton.jit
def polynomial(coefficients: tl.constexpr, COUNT: tl.constexpr, x):
    """Horner's scheme, highest degree first, each product and sum rounded."""
    p = double(coefficients[0]) + x * double(0.0)
    for i in tl.static_range(1, COUNT):
        p = p * x + double(coefficients[i])
    return p


@triton.jit
def sin_cos(position, frequency):
    """Sine and cosine of the exact product, reduced by pi / 2 in pieces."""
    angle, angle_low = two_product(position, frequency)
    scaled = angle * double(TWO_OVER_PI) + double(0.5)
    whole = scaled.to(tl.int64)
    n = whole.to(tl.float64)
    below = n > scaled
    whole = tl.where(below, whole - 1, whole)
    n = tl.where(below, n - double(1.0), n)
    minus = double(-1.0)
    first, first_low = contract.two_sum(
        angle - n * double(HALF_PI[0]), (n * double(HALF_PI[1])) * minus
    )
    second, second_low = contract.two_sum(first, (n * double(HALF_PI[2])) * minus)
    r = second + (((second_low + first_low) + angle_low) - n * double(HALF_PI[3]))
    square = r * r
    sin = r + r * square * polynomial(SIN, 8, square)
    cos = double(1.0) - (double(0.5) * square - square * square * polynomial(COS, 8, square))
    quadrant = whole & 3
    odd = (quadrant & 1) == 1
    # Quadrants 0 to 3: sine is sin, cos, -sin, -cos and cosine is cos, -sin, -cos, sin.
    sine = tl.where(odd, cos, sin)
    cosine = tl.where(odd, sin, cos)
    sine = tl.where(quadrant >= 2, sine * minus, sine)
    cosine = tl.where((quadrant == 1) | (quadrant == 2), cosine * minus, cosine)
    return sine, cosine


@triton.jit
def rotary_table_kernel(
    position_ids, inv_freq, scaling, cos, sin, count, half, BLOCK: tl.constexpr
):
    """Both tables, each value written to both halves; NaN where an angle reaches 2**31."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < tl.cast(count, tl.int64) * half
    row, i = at // half, at % half
    position = tl.load(position_ids + row, mask=inside, other=0).to(tl.float64)
    frequency = tl.load(inv_freq + i, mask=inside, other=0.0)
    bound = double(LIMIT)
    angle = position * frequency
    fits = (position < bound) & (position > bound * double(-1.0))
    fits = fits & (angle < bound) & (angle > bound * double(-1.0))
    sine, cosine = sin_cos(
        tl.where(fits, position, double(0.0)), tl.where(fits, frequency, double(0.0))
    )
    factor = tl.load(scaling)
    nan = contract.float_of(tl.full((BLOCK,), contract.NAN_BITS, tl.int32))
    cosine_rounded = tl.where(fits, (cosine * factor).to(tl.float32), nan)
    sine_rounded = tl.where(fits, (sine * factor).to(tl.float32), nan)
    out = row * 2 * half + i
    tl.store(cos + out, cosine_rounded, mask=inside)
    tl.store(cos + out + half, cosine_rounded, mask=inside)
    tl.store(sin + out, sine_rounded, mask=inside)
    tl.store(sin + out + half, sine_rounded, mask=inside)


@lru_cache(maxsize=64)
def _on_device(value: float, device: torch.device) -> Tensor:
    """A float64 of the host: arguments of kernels are float32."""
    return torch.tensor([value], dtype=torch.float64).to(device)


def rotary_table(
    position_ids: Tensor, inv_freq: Tensor, attention_scaling: float
) -> tuple[Tensor, Tensor]:
    """See `layercast.ops.rotary_table`. Where an angle reaches 2**31 the tables hold NaN."""
    position_ids, inv_freq = position_ids.contiguous(), inv_freq.contiguous()
    half = inv_freq.numel()
    device = position_ids.device
    cos = torch.empty((*position_ids.shape, 2 * half), dtype=torch.float32, device=device)
    sin = torch.empty_like(cos)
    count = position_ids.numel()
    if count:
        scaling = _on_device(float(attention_scaling), device)
        grid = (triton.cdiv(count * half, BLOCK),)
        rotary_table_kernel[grid](
            position_ids, inv_freq, scaling, cos, sin, count, half, BLOCK, **OPTIONS
        )
    return cos, sin


@triton.jit
def rotary_kernel(
    x,
    cos,
    sin,
    y,
    H,
    T,
    D,
    R,
    stride_b,
    stride_h,
    stride_t,
    units,
    UNITS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """`low * cos - high * sin` and `high * cos + low * sin`; channels from R on pass through."""
    unit = (tl.program_id(0).to(tl.int64) * UNITS + tl.arange(0, UNITS))[:, None]
    d = tl.arange(0, BLOCK_D)[None, :]
    inside = (unit < units) & (d < D)
    t, h, b = unit % T, unit // T % H, unit // T // H
    source = x + b * stride_b + h * stride_h + t * stride_t
    half = R // 2
    rotated = inside & (d < R)
    own = tl.load(source + d, mask=inside, other=0.0)
    partner = tl.load(source + tl.where(d < half, d + half, d - half), mask=rotated, other=0.0)
    table = (b * T + t) * R + d
    c = tl.load(cos + table, mask=rotated, other=0.0)
    s = tl.load(sin + table, mask=rotated, other=0.0)
    first = own * c - partner * s
    second = own * c + partner * s
    value = tl.where(d < half, first, tl.where(d < R, second, own))
    tl.store(y + unit * D + d, contract.canonical(value), mask=inside)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    if x.stride(3) != 1:
        x = x.contiguous()
    B, H, T, D = x.shape
    y = torch.empty((B, H, T, D), dtype=x.dtype, device=x.device)
    if y.numel():
        units = B * H * T
        rotary_kernel[(triton.cdiv(units, 8),)](
            x,
            cos,
            sin,
            y,
            H,
            T,
            D,
            cos.shape[-1],
            x.stride(0),
            x.stride(1),
            x.stride(2),
            units,
            UNITS=8,
            BLOCK_D=triton.next_power_of_2(D),
            **OPTIONS,
        )
    return y


def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """See `layercast.ops.rotary`."""
    cos, sin = cos.contiguous(), sin.contiguous()
    return _rotate(q, cos, sin), _rotate(k, cos, sin)
