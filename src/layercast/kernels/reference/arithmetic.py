"""What the contract needs that NumPy lacks: a fused multiply-add, a sum's error and one NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from layercast.numerics import CANONICAL_NAN_BITS

Float32 = NDArray[np.float32]

NAN = np.array(CANONICAL_NAN_BITS, dtype=np.uint32).view(np.float32)[()]


def fma(a: Any, b: Any, c: Any) -> Float32:
    """`a * b + c` of float32 arrays, rounded once.

    Computing in float64 and rounding the result to float32 would round twice, and where the first
    rounding lands on a tie of the second the result is wrong. So the first one rounds to odd:

    1. two 24-bit significands have a 48-bit product, exact in float64;
    2. the float64 sum's error is found exactly by TwoSum;
    3. where it is not zero and the sum's last bit is even, the sum moves one step towards the
       exact value, whose last bit is odd: the sum is then rounded to odd;
    4. rounding to odd at 53 bits and then to nearest at 24 (or fewer, for subnormals) equals one
       rounding to nearest, since an odd last bit can never be a tie.

    Float64 neither overflows nor underflows on products and sums of float32, so this holds
    everywhere.

    References:
        Boldo & Melquiond 2008, "Emulation of a FMA and correctly rounded sums: proved algorithms
        using rounding to odd".
    """
    with np.errstate(all="ignore"):
        product = np.multiply(a, b, dtype=np.float64)
        addend = np.asarray(c, dtype=np.float64)
        total = np.asarray(product + addend)
        part = total - product
        error = (product - (total - part)) + (addend - part)
        bits = total.view(np.int64)
        inexact = (error != 0) & ~np.isnan(error) & (bits & 1 == 0)
        step = np.where((error > 0) == (total > 0), 1, -1)
        odd = np.where(inexact, bits + step, bits).view(np.float64)
        return odd.astype(np.float32)


def two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """`a + b`, and its rounding error (Knuth), in the precision of the arguments."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def canonical(x: Float32) -> Float32:
    """`x` with every NaN written as 0x7fc00000: hardware differs in their signs and payloads."""
    return np.where(np.isnan(x), NAN, x)
