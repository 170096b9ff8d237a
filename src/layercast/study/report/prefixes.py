"""Which answers share which beginnings: every pairwise divergence from one sorted list.

Sequences in lexicographic order share with their neighbour at least as much as with anything
further away, so the common prefix of any two is the least of the neighbours' between them. A
problem's answers are stored that way: each as what it adds to the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PrefixOrder:
    """Distinct sequences in lexicographic order.

    Attributes:
        members: For each input, its place in the order; -1 where the input was None.
        first: For each place, the index of the first input there.
        shared: For each place, elements shared with the place before; 0 for the first.
    """

    members: tuple[int, ...]
    first: tuple[int, ...]
    shared: tuple[int, ...]

    def branch_positions(self, place: int) -> tuple[int, ...]:
        """Positions, ascending, at which the sequence at `place` parts from some other."""
        found = set()
        for steps in (self.shared[place:0:-1], self.shared[place + 1 :]):
            least: int | None = None
            for length in steps:
                least = length if least is None else min(least, length)
                found.add(least)
        return tuple(sorted(found))


def common_prefix(a: NDArray[np.integer], b: NDArray[np.integer]) -> int:
    """Elements two one-dimensional arrays share from the start."""
    length = min(len(a), len(b))
    unequal = np.flatnonzero(a[:length] != b[:length])
    return int(unequal[0]) if unequal.size else length


def prefix_order(sequences: Sequence[NDArray[np.integer] | None]) -> PrefixOrder:
    """Sort sequences and find what each shares with the one before.

    Args:
        sequences: Arrays of one unsigned or never negative integer type; None for a missing one.

    Returns:
        The order of the distinct ones.
    """
    keys = [None if s is None else _sort_key(s) for s in sequences]
    first_of: dict[bytes, int] = {}
    for index, key in enumerate(keys):
        if key is not None:
            first_of.setdefault(key, index)
    ordered = sorted(first_of)
    place = {key: number for number, key in enumerate(ordered)}
    first = tuple(first_of[key] for key in ordered)
    shared = [0] * len(first)
    for number in range(1, len(first)):
        before, here = sequences[first[number - 1]], sequences[first[number]]
        assert before is not None and here is not None  # noqa: PT018  (only arrays have a key)
        shared[number] = common_prefix(before, here)
    return PrefixOrder(
        members=tuple(-1 if key is None else place[key] for key in keys),
        first=first,
        shared=tuple(shared),
    )


def _sort_key(sequence: NDArray[np.integer]) -> bytes:
    # Big-endian bytes of numbers that are never negative compare as the numbers do.
    return np.ascontiguousarray(sequence, dtype=sequence.dtype.newbyteorder(">")).tobytes()
