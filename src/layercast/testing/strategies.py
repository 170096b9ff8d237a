"""Hypothesis strategies: sizes at the edges of tiles, values that show an order of summation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

_PRIMES = (2, 3, 5, 7, 13, 31, 61, 127)


def edge_sizes(
    *, minimum: int = 0, maximum: int = 200, tiles: Sequence[int] = (8, 16, 64, 128)
) -> st.SearchStrategy[int]:
    """Sizes where tilings go wrong: 0, 1, one around each tile and its double, primes, and others.

    Args:
        minimum: Smallest size drawn.
        maximum: Largest size drawn.
        tiles: Tile sizes to stay around.

    Returns:
        A strategy of integers in minimum..maximum.
    """
    around = {t * m + d for t in tiles for m in (1, 2) for d in (-1, 0, 1)} | {0, 1, *_PRIMES}
    edges = sorted(size for size in around if minimum <= size <= maximum)
    anywhere = st.integers(minimum, maximum)
    return st.sampled_from(edges) | anywhere if edges else anywhere


def _magnitudes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Signs, significands and exponents over 2**-20..2**20: sums of these depend on their order."""
    values = rng.standard_normal(shape) * np.exp2(rng.integers(-20, 21, shape))
    return values.astype(np.float32)


def _bit_patterns(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Any float32: subnormals, infinities and NaN of every payload among them."""
    return rng.integers(0, 2**32, shape, dtype=np.uint32).view(np.float32)


def _ties(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Few distinct values, signed zeros among them: ties and exact cancellations."""
    values = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 3.0, 1e-40, -1e-40], np.float32)
    return rng.choice(values, shape)


_KINDS = {"magnitudes": _magnitudes, "bits": _bit_patterns, "ties": _ties}


def draw_values(
    kind: str, seed: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Values of one kind from a seed, the same on every machine.

    Args:
        kind: "magnitudes", "bits" or "ties".
        seed: Of NumPy's PCG64.
        shape: Of the result.
        dtype: float32, or a 16-bit type the values are rounded to ("bits" draws that type's own
            patterns).

    Returns:
        A tensor of `dtype`.
    """
    rng = np.random.default_rng(seed)
    if kind == "bits" and dtype.itemsize == 2:
        words = rng.integers(-(2**15), 2**15, shape, dtype=np.int16)
        return torch.from_numpy(words).view(dtype)
    values = torch.from_numpy(np.ascontiguousarray(_KINDS[kind](rng, shape)))
    if dtype == torch.float16 and kind == "magnitudes":
        values = values.clamp(-65504.0, 65504.0)
    return values.to(dtype)


def kinds() -> st.SearchStrategy[str]:
    """Kinds of values for `draw_values`; order-revealing magnitudes most often."""
    return st.sampled_from(["magnitudes", "magnitudes", "bits", "ties"])


def seeds() -> st.SearchStrategy[int]:
    """Seeds for `draw_values`."""
    return st.integers(0, 2**32 - 1)


def storage_dtypes() -> st.SearchStrategy[torch.dtype]:
    """Storage types of weights."""
    return st.sampled_from([torch.bfloat16, torch.float16, torch.float32])
