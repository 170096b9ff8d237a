"""`sample`: exact integer weights and a counter-based draw, in Python integers."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from layercast.kernels.reference import contract
from layercast.kernels.reference.arithmetic import Float32
from layercast.kernels.reference.selection import descending
from layercast.kernels.reference.tensors import integers, to_tensor, upcast

_WORD = 0xFFFFFFFF


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox 4x32-10: four 32-bit words from a 128-bit counter and a 64-bit key.

    References:
        Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & _WORD, (a >> 32) ^ c3 ^ k1, a & _WORD
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return [c0, c1, c2, c3]


def _draw(seed: int, sequence_key: int, position: int) -> int:
    words = [
        position & _WORD,
        position >> 32 & _WORD,
        sequence_key & _WORD,
        sequence_key >> 32 & _WORD,
    ]
    out = philox(words, [seed & _WORD, seed >> 32 & _WORD])
    return out[0] | out[1] << 32


def sample(
    logits: Tensor,
    temperature: float,
    seed: int,
    sequence_keys: Tensor,
    positions: Tensor,
    top_k: int,
    top_p_units: int,
    min_p_units: int,
) -> Tensor:
    """See `layercast.ops.sample`; `top_p_units` and `min_p_units` count units of 2**-32."""
    with np.errstate(all="ignore"):
        scores: Float32 = upcast(logits) / np.float32(temperature)
        m = np.max(scores, axis=-1, keepdims=True)
        p = contract.exp(scores - m)
    tokens = []
    for row, key, position in zip(
        range(len(scores)), integers(sequence_keys), integers(positions), strict=True
    ):
        # Exact: a float32 times 2**40 is a float64, and Python rounds ties to even.
        weights = [round(float(value) * 2.0**40) for value in p[row]]
        order = [int(i) for i in descending(scores[row])[:top_k]]
        cut = -(-sum(weights[i] for i in order) * top_p_units >> 32)
        kept, before = [], 0
        for i in order:
            if before >= cut:
                break
            kept.append(i)
            before += weights[i]
        # The largest weight is 2**40, that of exp(0).
        kept = [i for i in kept if weights[i] >= min_p_units << 8]
        target = _draw(seed, int(key), int(position)) * sum(weights[i] for i in kept) >> 64
        running = 0
        for i in sorted(kept):
            running += weights[i]
            if running > target:
                tokens.append(i)
                break
    return to_tensor(np.array(tokens, dtype=np.int64))
