"""Bootstrap intervals: how far a figure would move with other problems of the same kind.

Problems are drawn with replacement; the configurations of a drawn problem stay together, since
they answer the same question. Every figure is a mean over problems, a ratio of such means, or a
function of one mean for each configuration, so a resample is a row of counts and a matrix
product does the work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval; NaN where it is not defined."""

    value: float
    low: float
    high: float

    @classmethod
    def undefined(cls) -> Estimate:
        """Return the estimate of a figure that the records cannot give."""
        return cls(math.nan, math.nan, math.nan)


class Bootstrap:
    """Resamples of one set of problems, the same for every figure and every precision.

    Args:
        problems: How many problems there are.
        samples: How many resamples.
        seed: Of the generator (PCG64); the same seed gives the same intervals.
        level: Share of the resamples between the two ends of an interval.
    """

    def __init__(
        self, problems: int, *, samples: int = 2000, seed: int = 0, level: float = 0.95
    ) -> None:
        generator = np.random.default_rng(seed)
        shares = np.full(problems, 1 / problems) if problems else np.empty(0)
        self._counts: Floats = (
            generator.multinomial(problems, shares, size=samples).astype(np.float64)
            if problems
            else np.zeros((samples, 0))
        )
        self._tails = 50 * (1 - level), 100 - 50 * (1 - level)

    def mean(self, values: Floats, *, scale: float = 1.0) -> Estimate:
        """Estimate the mean over problems.

        Args:
            values: One number a problem, shape (problems,); NaN is left out.
            scale: Factor of the result, 100 for percent.
        """
        return self._estimate(scale * self._means(values[:, None])[:, 0])

    def mean_over_configurations(self, values: Floats, *, scale: float = 1.0) -> Estimate:
        """Estimate the mean over configurations of the mean over problems.

        Args:
            values: Shape (problems, configurations); NaN is left out.
            scale: Factor of the result.
        """
        return self._estimate(scale * _row_statistic(self._means(values), spread=False))

    def std_over_configurations(self, values: Floats, *, scale: float = 1.0) -> Estimate:
        """Estimate the sample standard deviation (ddof 1), over configurations, of those means.

        Args:
            values: Shape (problems, configurations); NaN is left out.
            scale: Factor of the result.
        """
        return self._estimate(scale * _row_statistic(self._means(values), spread=True))

    def _means(self, values: Floats) -> Floats:
        """Return means over problems: the first row of all problems, then one row a resample."""
        present = ~np.isnan(values)
        counts = np.vstack([np.ones((1, values.shape[0])), self._counts])
        totals = counts @ np.where(present, values, 0.0)
        sizes = counts @ present.astype(np.float64)
        return _divide(totals, sizes)

    def _estimate(self, figures: Floats) -> Estimate:
        resampled = figures[1:][~np.isnan(figures[1:])]
        if math.isnan(figures[0]) or not resampled.size:
            return Estimate.undefined()
        low, high = np.percentile(resampled, self._tails)
        return Estimate(float(figures[0]), float(low), float(high))


def _row_statistic(table: Floats, *, spread: bool) -> Floats:
    """Return mean or sample standard deviation of each row, NaN skipped; NaN where undefined."""
    present = ~np.isnan(table)
    sizes = present.sum(axis=1)
    if not spread:
        return _divide(np.where(present, table, 0.0).sum(axis=1), sizes)
    # Shifted by one of them, equal figures have a spread of exactly zero.
    first = np.take_along_axis(table, present.argmax(axis=1)[:, None], axis=1)
    shifted = np.where(present, table - first, 0.0)
    means = _divide(shifted.sum(axis=1), sizes)
    squares = np.where(present, (shifted - means[:, None]) ** 2, 0.0).sum(axis=1)
    return np.sqrt(_divide(squares, sizes - 1))


def _divide(totals: Floats, sizes: NDArray[Any]) -> Floats:
    """Return the ratio, NaN where `sizes` is not positive."""
    ratio: Floats = np.full(totals.shape, np.nan)
    np.divide(totals, sizes, out=ratio, where=sizes > 0)
    return ratio
