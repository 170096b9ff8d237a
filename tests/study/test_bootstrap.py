"""Contract under test: intervals come from resampling problems, seeded, all figures alike."""

from __future__ import annotations

import math

import numpy as np
import pytest

from layercast.study import metrics
from layercast.study.bootstrap import Bootstrap


def test_mean_is_the_mean_and_its_interval_is_the_normal_one() -> None:
    # 400 numbers of mean 5 and standard deviation 2: the mean's standard error is 0.1, so the
    # 95 % interval is 1.96 * 0.1 to either side; the bootstrap's own noise is a few percent of it.
    values = 5 + 2 * np.random.default_rng(3).standard_normal(400)
    estimate = Bootstrap(400, samples=4000, seed=1).mean(values)
    error = values.std(ddof=1) / math.sqrt(400)
    assert estimate.value == pytest.approx(values.mean(), rel=1e-12)
    assert estimate.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert estimate.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(3).standard_normal(50)
    first, again = (Bootstrap(50, seed=7).mean(values) for _ in range(2))
    assert first == again
    assert Bootstrap(50, seed=8).mean(values) != first


def test_std_over_configurations_agrees_with_the_metric() -> None:
    correct = (np.random.default_rng(0).random((30, 12)) < 0.7).astype(float)
    correct[:, 5] = np.nan  # a configuration that did not run
    estimate = Bootstrap(30).std_over_configurations(correct, scale=100.0)
    accuracies = [None if c == 5 else 100 * correct[:, c].mean() for c in range(12)]
    assert estimate.value == pytest.approx(metrics.std_at_acc(accuracies), rel=1e-12)
    assert estimate.low < estimate.value < estimate.high


def test_configuration_that_lacks_a_problem_is_left_out() -> None:
    # Right on the easy half alone, the third would look twice as good as the others.
    correct = np.repeat((np.arange(40) < 20).astype(float)[:, None], 3, axis=1)
    correct[20:, 2] = np.nan
    spread = Bootstrap(40).std_over_configurations(correct)
    assert (spread.value, spread.low, spread.high) == (0.0, 0.0, 0.0)
    assert Bootstrap(40).mean_over_configurations(correct).value == 0.5
    assert math.isnan(Bootstrap(40).mean_over_configurations(correct[:, 2:]).value)
    assert math.isnan(Bootstrap(40).std_over_configurations(correct[:, :0]).value)


def test_interval_of_std_at_acc_holds_the_expected_value_and_its_own_figure() -> None:
    # 64 problems and 12 configurations; a coin decides 30 % of the problems in each of them.
    rng = np.random.default_rng(12)
    estimates = []
    for study in range(200):
        rounding = rng.random((64, 1)) < 0.3
        coins, known = rng.random((64, 12)) < 0.5, rng.random((64, 1)) < 0.7
        correct = np.where(rounding, coins, known).astype(float)
        bootstrap = Bootstrap(64, samples=400, seed=study)
        estimates.append(bootstrap.std_over_configurations(correct, scale=100.0))
    expected = np.mean([estimate.value for estimate in estimates])
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in estimates)
    # The nominal 95 %; of plain percentile intervals about 178 would cover, of basic ones 145.
    covering = sum(estimate.low <= expected <= estimate.high for estimate in estimates)
    assert covering >= 190


def test_configurations_of_a_problem_stay_together() -> None:
    # All configurations agree on every problem: whatever is drawn, their accuracies are equal.
    # Drawing answers instead of problems would show a spread.
    correct = np.repeat((np.arange(40) % 3 == 0).astype(float)[:, None], 12, axis=1)
    estimate = Bootstrap(40).std_over_configurations(correct)
    assert (estimate.value, estimate.low, estimate.high) == (0.0, 0.0, 0.0)
    mean = Bootstrap(40).mean_over_configurations(correct)
    assert mean.low < mean.value < mean.high


def test_missing_problems_are_left_out() -> None:
    estimate = Bootstrap(4).mean(np.array([1.0, np.nan, 3.0, np.nan]))
    assert estimate.value == 2.0
    assert (estimate.low, estimate.high) == (1.0, 3.0)


@pytest.mark.parametrize("values", [np.array([]), np.array([np.nan, np.nan])])
def test_figure_of_nothing_is_undefined(values: np.ndarray) -> None:
    estimate = Bootstrap(len(values)).mean(values)
    assert math.isnan(estimate.value)
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


def test_spread_of_one_configuration_is_undefined() -> None:
    assert math.isnan(Bootstrap(5).std_over_configurations(np.ones((5, 1))).value)
