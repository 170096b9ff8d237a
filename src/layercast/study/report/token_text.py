"""Token sequences as short text, and the vocabulary pieces they need.

A number is written in base 45, least digit first; of the 90 characters used, the first 45 end a
number and the others say that more follows. The pieces met most often have the smallest numbers,
so most tokens take one or two characters. Number 0 is a gap: the next number counts the tokens
left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

BASE = 45
# Printable ASCII without what JSON would escape or this page escapes: " & < > \.
ALPHABET = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) not in '"&<>\\')
GAP = 0


class PieceTable:
    """Numbers for the vocabulary pieces a page shows, the most frequent first.

    Args:
        counts: How often each token id is written.
        pieces: Text of each token id; ids without one are shown as ⟨id⟩.
    """

    def __init__(self, counts: Mapping[int, int], pieces: Mapping[int, str]) -> None:
        self._ids = sorted(counts, key=lambda token: (-counts[token], token))
        size = max(self._ids, default=-1) + 1
        self._numbers = np.full(size, -1, np.int64)
        self._numbers[self._ids] = np.arange(1, len(self._ids) + 1)
        self._texts = [pieces.get(token, f"⟨{token}⟩") for token in self._ids]
        self._codes = [encode_number(n) for n in range(len(self._ids) + 1)]

    @property
    def texts(self) -> list[str]:
        """Text of number n at index n - 1."""
        return self._texts

    def number(self, token: int) -> int:
        """Number of a token id."""
        return int(self._numbers[token])

    def encode(self, ids: NDArray[np.integer]) -> str:
        """Token ids as text."""
        return "".join(map(self._codes.__getitem__, self._numbers[ids].tolist()))


def encode_number(number: int) -> str:
    """One number that is not negative as characters of `ALPHABET`."""
    digits = []
    while number >= BASE:
        number, digit = divmod(number, BASE)
        digits.append(ALPHABET[BASE + digit])
    digits.append(ALPHABET[number])
    return "".join(digits)


def encode_gap(count: int) -> str:
    """`count` tokens left out."""
    return encode_number(GAP) + encode_number(count)


def count_tokens(arrays: Iterable[NDArray[np.integer]]) -> dict[int, int]:
    """How often each token id occurs."""
    totals = np.zeros(0, np.int64)
    for array in arrays:
        counts = np.bincount(array)
        if len(counts) > len(totals):
            totals = np.pad(totals, (0, len(counts) - len(totals)))
        totals[: len(counts)] += counts
    return {int(token): int(totals[token]) for token in np.flatnonzero(totals)}


def kept_runs(length: int, start: int, anchors: Sequence[int], reach: int) -> list[tuple[int, int]]:
    """Which tokens of a long answer a page keeps.

    Args:
        length: Tokens in the answer.
        start: First token not shared with the answer before it in the order.
        anchors: Positions worth seeing.
        reach: Tokens kept on either side of each anchor, and at both ends.

    Returns:
        Half-open runs in ascending order, disjoint, within `start` and `length`.
    """
    runs: list[tuple[int, int]] = []
    for anchor in sorted({0, length, *anchors}):
        low, high = max(start, anchor - reach), min(length, anchor + reach)
        if low >= high:
            continue
        if runs and low <= runs[-1][1]:
            runs[-1] = (runs[-1][0], max(runs[-1][1], high))
        else:
            runs.append((low, high))
    return runs
