"""The arithmetic contract in code: its version, its constants and the bounds of shards and
chunks.

The bits of a result are a function of its inputs alone; these numbers fix the order that makes it
so. Changing any of them changes bits, raises `NUMERICS_VERSION` and is a breaking change.
"""

from __future__ import annotations

from itertools import pairwise

NUMERICS_VERSION = 1

SHARDS = 8
"""Parts of a reduction, joined in a tree: where 1, 2, 4 and 8 tensor-parallel ranks cut it."""

CHUNK = 64
"""Longest chain of fused multiply-adds inside a shard."""

KEY_BLOCK = 64
"""Key positions whose softmax is computed together before blocks are merged."""

CANONICAL_NAN_BITS = 0x7FC00000
"""The bits every NaN result is written with."""


def shard_bounds(length: int) -> list[tuple[int, int]]:
    """Half-open ranges of the 8 shards of a reduction over 0..length, cut at `floor(length * i /
    8)`.

    Args:
        length: Terms of the reduction, >= 0. Below 8, some shards are empty.

    Returns:
        Eight `(begin, end)` pairs that cover 0..length in order.
    """
    cuts = [length * i // SHARDS for i in range(SHARDS + 1)]
    return list(pairwise(cuts))


def part_bounds(length: int, part: int, parts: int) -> tuple[int, int]:
    """Half-open range that tensor-parallel rank `part` of `parts` holds of a reduction.

    Args:
        length: Terms of the whole reduction, >= 0.
        part: Rank, 0 <= part < parts.
        parts: 1, 2, 4 or 8.

    Returns:
        `(begin, end)`: whole shards, so that a rank's sum is a subtree of the whole.
    """
    shards = SHARDS // parts
    bounds = shard_bounds(length)
    return bounds[part * shards][0], bounds[(part + 1) * shards - 1][1]


def chunk_bounds(begin: int, end: int) -> list[tuple[int, int]]:
    """Half-open ranges of the chunks of one shard: 64 terms each, the last one shorter.

    Args:
        begin: First term of the shard.
        end: One past its last term.

    Returns:
        `(begin, end)` pairs in order; empty for an empty shard.
    """
    return [(start, min(start + CHUNK, end)) for start in range(begin, end, CHUNK)]
