"""Which setting the differences come from, and how close calls usually are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from layercast.study.report.matrix import Matrix
from layercast.study.report.packing import Answer


@dataclass(frozen=True)
class AxisEffect:
    """How often answers differ between configurations that differ in one axis alone.

    Attributes:
        axis: Name for the reader.
        pairs: Pairs of answers to one problem that were compared.
        differing: Those whose tokens are not the same.
    """

    axis: str
    pairs: int
    differing: int

    @property
    def percent(self) -> float:
        """Share of the pairs that differ; there is at least one pair."""
        return 100.0 * self.differing / self.pairs


_AXES: tuple[tuple[str, Callable[[Matrix, int], object]], ...] = (
    ("run", lambda m, c: m.sources[c].run),
    ("instruction set", lambda m, c: m.configuration(c).instruction_set),
    ("threads", lambda m, c: m.configuration(c).threads),
    ("batch size", lambda m, c: m.configuration(c).batch_size),
)


def axis_effects(matrix: Matrix, precision: int) -> list[AxisEffect]:
    """Compare the answers of every two complete configurations that differ in one axis alone.

    Args:
        matrix: The answers.
        precision: Its number in the matrix.

    Returns:
        One effect an axis, without the axes along which nothing could be compared.
    """
    rows = [most_common_first(row) for row in matrix.compared(precision)]
    effects = []
    for axis, pairs in _pairs_by_axis(matrix).items():
        outcomes = Counter(
            row[i] == row[j]
            for row in rows
            for i, j in pairs
            if row[i] is not None and row[j] is not None
        )
        if outcomes:
            effects.append(AxisEffect(axis, outcomes.total(), outcomes[False]))
    return effects


def median_margin(matrix: Matrix, precision: int) -> float:
    """Median gap in nats between the two best tokens, over all tokens of all answers."""
    gaps = [
        answer.top_logprobs[:, 0] - answer.top_logprobs[:, 1]
        for row in matrix.answers(precision)
        for answer in row
        if answer is not None
    ]
    every = np.concatenate(gaps) if gaps else np.empty(0)
    return float(np.median(every)) if every.size else float("nan")


def results_moved(matrix: Matrix, precision: int) -> int:
    """Problems whose final answers, as the grader read them, are not all the same."""
    return sum(
        len({answer.extracted for answer in row if answer is not None}) > 1
        for row in matrix.compared(precision)
    )


def most_common_first(row: Sequence[Answer | None]) -> list[int | None]:
    """Rank of each answer of one problem: 0 for the most common, then by frequency.

    Equally common answers rank by the first configuration that gave them; None where there is no
    answer.
    """
    keys = [None if answer is None else answer.token_ids.tobytes() for answer in row]
    # Counter keeps the order of first occurrence among equals.
    common = Counter(key for key in keys if key is not None).most_common()
    ranks = {key: rank for rank, (key, _) in enumerate(common)}
    return [None if key is None else ranks[key] for key in keys]


def _pairs_by_axis(matrix: Matrix) -> dict[str, list[tuple[int, int]]]:
    pairs: dict[str, list[tuple[int, int]]] = {axis: [] for axis, _ in _AXES}
    for i, j in combinations(range(len(matrix.sources)), 2):
        differing = [axis for axis, value in _AXES if value(matrix, i) != value(matrix, j)]
        if len(differing) == 1:
            pairs[differing[0]].append((i, j))
    return pairs
