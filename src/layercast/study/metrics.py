"""The metrics of arXiv:2506.09501, and bit-level divergence, as pure functions of records.

Words: a *problem* is answered once under each *configuration*; a *cell* is one such answer.
A cell that was never produced (out of memory, say) is ``None`` and is skipped. Tables are
problems x configurations; a row may hold token ids, lengths, probabilities or grades. The
end-of-sequence token counts as a token. Nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from layercast.errors import ShapeError

#: What `mean_divergence_index` returns when no problem diverges, as in the paper.
NO_DIVERGENCE = -1.0


def sample_std(values: Iterable[float | None]) -> float:
    """Return the sample standard deviation (ddof 1) of the values that are there.

    Args:
        values: Numbers; None is skipped.

    Returns:
        The standard deviation in the unit of `values`; NaN for fewer than two values, of which
        no spread can be said.
    """
    present = np.array([value for value in values if value is not None], dtype=np.float64)
    return float(_column_std(present)) if present.size > 1 else math.nan


def _column_std(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sample standard deviation down the first axis, exactly 0 where all are equal."""
    # Without the shift a mean that rounds would leave 1e-17 where nothing varies.
    return np.asarray((table - table[:1]).std(axis=0, ddof=1))


def std_at_acc(accuracies: Iterable[float | None]) -> float:
    """Return Std@Acc: the spread of accuracy over configurations.

    Args:
        accuracies: Accuracy under each configuration, in percent; None (did not run) is skipped.

    Returns:
        Sample standard deviation (ddof 1) in percentage points; NaN for fewer than two.

    References:
        arXiv:2506.09501, section 3.1 and the tables of its appendix.
    """
    return sample_std(accuracies)


def divergence_index(responses: Iterable[ArrayLike | None]) -> int | None:
    """Return the first position at which the responses to one problem are not all the same.

    A response that is a proper prefix of another diverges at its own length, because there one
    has ended and the other has not.

    Args:
        responses: Token ids under each configuration, each one-dimensional; None is skipped.

    Returns:
        Position counted from the first generated token, or None when all responses are equal
        (one response or none included).
    """
    present = [np.asarray(response) for response in responses if response is not None]
    if len(present) < 2:
        return None
    # The common prefix of all is the shortest common prefix with any one of them.
    first, others = present[0], present[1:]
    indices = [index for other in others if (index := _pair_divergence(first, other)) is not None]
    return min(indices, default=None)


def _pair_divergence(a: NDArray[np.generic], b: NDArray[np.generic]) -> int | None:
    shared = min(a.size, b.size)
    unequal = np.flatnonzero(a[:shared] != b[:shared])
    if unequal.size:
        return int(unequal[0])
    return None if a.size == b.size else shared


def divergence_indices(
    responses: Sequence[Sequence[ArrayLike | None]],
) -> list[int | None]:
    """Return `divergence_index` of every problem.

    Args:
        responses: Problems x configurations, each cell the token ids or None.
    """
    return [divergence_index(row) for row in responses]


def div_percent(responses: Sequence[Sequence[ArrayLike | None]]) -> float:
    """Return Div_Percent: the share of problems whose responses are not all equal.

    Args:
        responses: Problems x configurations, each cell the token ids or None.

    Returns:
        Percent of the problems with at least two responses, since one alone cannot diverge; NaN
        if there is none.
    """
    compared = [row for row in responses if _count(row) > 1]
    return 100.0 * _mean(float(divergence_index(row) is not None) for row in compared)


def mean_divergence_index(responses: Sequence[Sequence[ArrayLike | None]]) -> float:
    """Return Div_Index: the mean divergence index over the problems that diverge.

    Args:
        responses: Problems x configurations, each cell the token ids or None.

    Returns:
        Tokens; `NO_DIVERGENCE` (-1) when no problem diverges.
    """
    diverging = [index for index in divergence_indices(responses) if index is not None]
    return float(np.mean(diverging)) if diverging else NO_DIVERGENCE


def avg_std_output_length(lengths: Sequence[Sequence[int | float | None]]) -> float:
    """Return Avg_Std@Output_Length: the spread of length over configurations, mean over problems.

    Args:
        lengths: Problems x configurations, in tokens, end-of-sequence included; None is skipped.

    Returns:
        Tokens; problems with fewer than two lengths are left out, NaN if none is left.
    """
    spreads = [sample_std(row) for row in lengths]
    return _mean(spread for spread in spreads if not math.isnan(spread))


def avg_std_top1_prob(
    probabilities: Sequence[Sequence[ArrayLike | None]],
    responses: Sequence[Sequence[ArrayLike | None]],
) -> float:
    """Return Avg_Std@top1_prob: how far the top token's probability moves while prefixes agree.

    At each position up to and including the divergence index the prefix is the same under every
    configuration, so the probabilities are comparable; their standard deviation (ddof 1) over
    configurations is averaged over positions, then over problems. A problem that never diverges
    contributes all its positions.

    Args:
        probabilities: Problems x configurations, each cell the top-1 probability (not its
            logarithm) at every position, or None.
        responses: Problems x configurations, each cell the token ids that were generated, as many
            as there are probabilities, or None.

    Returns:
        A probability; problems with no comparable position are left out, NaN if none is left.

    Raises:
        ShapeError: a cell of one table does not match that of the other.
    """
    _require_same_shape(probabilities, responses)
    indices = divergence_indices(responses)
    terms = [std_top1_prob(row, index) for row, index in zip(probabilities, indices, strict=True)]
    return _mean(term for term in terms if term is not None)


def _require_same_shape(probabilities: object, responses: object) -> None:
    ours, theirs = _lengths(probabilities), _lengths(responses)
    if ours is None or theirs is None:
        name = "probabilities" if ours is None else "responses"
        raise ShapeError(
            f"avg_std_top1_prob: `{name}` must be problems x configurations, each cell a sequence "
            "or None, got something else. Pass the token ids of each answer as `responses`."
        )
    if len(ours) != len(theirs):
        raise ShapeError(
            f"avg_std_top1_prob: `responses` must hold as many problems as `probabilities`, got "
            f"{len(theirs)} and {len(ours)}. Pass the same problems in both."
        )
    for problem, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a != b:
            raise ShapeError(
                f"avg_std_top1_prob: `responses` must hold as many tokens as `probabilities` has "
                f"positions in each cell, got {b} and {a} in problem {problem}. Pass the same "
                "answers in both."
            )


def _lengths(table: object) -> list[list[int | None]] | None:
    """Return the length of each cell, None for a missing one; None if it is no such table."""
    if not isinstance(table, Sequence | np.ndarray):
        return None
    rows: list[list[int | None]] = []
    for row in table:
        if not isinstance(row, Sequence | np.ndarray):
            return None
        cells = [None if cell is None else np.asarray(cell) for cell in row]
        if any(cell is not None and cell.ndim != 1 for cell in cells):
            return None
        rows.append([None if cell is None else cell.size for cell in cells])
    return rows


def std_top1_prob(probabilities: Iterable[ArrayLike | None], index: int | None) -> float | None:
    """Return one problem's term of `avg_std_top1_prob`; None without a comparable position."""
    whole, last = _align(probabilities, index)
    parts = [part.astype(np.float64) for part in (whole, last[:, None]) if len(part) > 1]
    spreads = [spread for part in parts for spread in _column_std(part)]
    return float(np.mean(spreads)) if len(whole) > 1 and spreads else None


def _align(
    cells: Iterable[ArrayLike | None], index: int | None
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Cut one problem's per-position values to the positions that share their prefix.

    These are 0..`index` inclusive, since the distribution at the divergence index still follows
    the common prefix; all positions if `index` is None.

    Returns:
        The positions every response has, shape (responses, positions), and the values of the one
        position more that only the longer ones have: a response may end at the index itself.
    """
    stop = None if index is None else index + 1
    rows = [np.asarray(cell)[:stop] for cell in cells if cell is not None]
    shortest = min((row.size for row in rows), default=0)
    whole = np.stack([row[:shortest] for row in rows]) if rows else np.empty((0, 0))
    return whole, np.array([row[shortest] for row in rows if row.size > shortest])


def pass_at_1(correct: Sequence[Sequence[bool | float | None]]) -> float:
    """Return Pass@1: the mean over problems of the share of samples that are correct.

    Its spread under sampling is `std_at_acc` of the Pass@1 of each configuration.

    Args:
        correct: Problems x samples; None is skipped.

    Returns:
        Percent; problems without a sample are left out, NaN if none is left.
    """
    shares = [_mean(float(grade) for grade in row if grade is not None) for row in correct]
    return 100.0 * _mean(share for share in shares if not math.isnan(share))


def first_bit_divergence(digests: Iterable[ArrayLike | None], index: int | None) -> int | None:
    """Return the first shared position whose log-probabilities are not the same bits everywhere.

    Args:
        digests: One problem's digests of the whole log-probability row at each position, one
            array a configuration; None is skipped.
        index: `divergence_index` of the problem.

    Returns:
        Position, or None when every shared position is bitwise equal.
    """
    whole, last = _align(digests, index)
    unequal = np.flatnonzero((whole != whole[:1]).any(axis=0))
    if unequal.size:
        return int(unequal[0])
    return whole.shape[1] if np.unique(last).size > 1 else None


def compared_positions(digests: Iterable[ArrayLike | None], index: int | None) -> int:
    """Return how many positions `first_bit_divergence` compares between two responses or more."""
    whole, last = _align(digests, index)
    return (whole.shape[1] if len(whole) > 1 else 0) + (last.size > 1)


def bit_div_percent(
    digests: Sequence[Sequence[ArrayLike | None]], indices: Sequence[int | None]
) -> float:
    """Return the share of problems whose log-probabilities differ in any bit at a shared position.

    Args:
        digests: Problems x configurations, each cell the row digests of every position or None.
        indices: `divergence_index` of each problem.

    Returns:
        Percent of the problems with at least two answers, as in `div_percent`; NaN if there is
        none.
    """
    pairs = zip(digests, indices, strict=True)
    compared = [(row, index) for row, index in pairs if _count(row) > 1]
    return 100.0 * _mean(float(first_bit_divergence(*pair) is not None) for pair in compared)


def _count(cells: Iterable[object | None]) -> int:
    return sum(cell is not None for cell in cells)


def _mean(values: Iterable[float]) -> float:
    present = list(values)
    return float(np.mean(present)) if present else math.nan
