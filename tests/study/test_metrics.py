"""Contract under test: the metrics are the paper's, and each is right where it is easy to be wrong.

Expected numbers are worked by hand in the comments.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercast.errors import ShapeError
from layercast.study import metrics

PAPER = json.loads((Path(__file__).parents[1] / "data" / "paper_tables.json").read_text())
PAPER_ROWS = [
    pytest.param(table["accuracy"][precision], printed, id=f"table {table['id']} {precision}")
    for table in PAPER["tables"]
    for precision, printed in table["printed_std_at_acc"].items()
]


@pytest.mark.parametrize(("accuracies", "printed"), PAPER_ROWS)
def test_std_at_acc_is_the_papers_to_the_printed_digit(
    accuracies: list[float | None], printed: float
) -> None:
    # Three fp32 configurations of table 10 ran out of memory (None): the rest alone count.
    assert f"{metrics.std_at_acc(accuracies):.2f}" == f"{printed:.2f}"


@pytest.mark.parametrize("table", PAPER["tables"], ids=lambda table: f"table {table['id']}")
def test_papers_accuracies_are_whole_numbers_of_problems(table: dict) -> None:
    # AIME'24 has 30 problems, GPQA Diamond 198. From the counts themselves the printed standard
    # deviations come out too but for one, which is that of the accuracies as rounded.
    problems = {"AIME'24": 30, "GPQA Diamond": 198}[table["task"]]
    for precision, accuracies in table["accuracy"].items():
        counts = [None if a is None else round(a * problems / 100) for a in accuracies]
        exact = [None if c is None else 100 * c / problems for c in counts]
        assert [None if e is None else f"{e:.2f}" for e in exact] == [
            None if a is None else f"{a:.2f}" for a in accuracies
        ]
        printed = table["printed_std_at_acc"][precision]
        of_rounded = (table["id"], precision) == (10, "bf16")
        expected = 5.03 if of_rounded else printed
        assert f"{metrics.std_at_acc(exact):.2f}" == f"{expected:.2f}"


@pytest.mark.parametrize(("accuracies", "printed"), PAPER_ROWS)
def test_population_std_is_not_the_papers(accuracies: list[float], printed: float) -> None:
    # The control: with ddof 0 no row comes out as printed.
    present = [value for value in accuracies if value is not None]
    assert f"{np.std(present):.2f}" != f"{printed:.2f}"


def test_std_at_acc_of_one_configuration_is_undefined() -> None:
    assert math.isnan(metrics.std_at_acc([71.0]))
    assert math.isnan(metrics.std_at_acc([71.0, None]))
    assert math.isnan(metrics.std_at_acc([]))


def test_std_at_acc_by_hand() -> None:
    # Mean 60; deviations -10, 0, 10; squares 200; over n - 1 = 2: 100; root: 10.
    assert metrics.std_at_acc([50.0, None, 60.0, 70.0]) == 10.0
    assert metrics.std_at_acc([50.0, 50.0]) == 0.0


@pytest.mark.parametrize(
    ("responses", "index"),
    [
        pytest.param([[5, 6, 7], [5, 6, 7]], None, id="identical"),
        pytest.param([[5, 6, 7], [5, 9, 7]], 1, id="the token at 1 differs"),
        pytest.param([[5, 6, 7], [4, 6, 7]], 0, id="the first token differs"),
        # [5, 6] has ended at 2, where the other has a third token.
        pytest.param([[5, 6], [5, 6, 7]], 2, id="proper prefix"),
        pytest.param([[5, 6, 7], [5, 6]], 2, id="proper prefix, the longer first"),
        pytest.param([[], [5]], 0, id="empty and not"),
        pytest.param([[], []], None, id="both empty"),
        # 1 and 2 agree to the end, 3 parts from them at 1: the first place where not all agree.
        pytest.param([[5, 6, 7], [5, 6, 7], [5, 1, 7]], 1, id="two agree, the third does not"),
        # With the first as reference the others part at 2 and at 1.
        pytest.param([[1, 2, 3], [1, 2, 4], [1, 9, 3]], 1, id="the earliest of several"),
        pytest.param([[1, 2, 3, 4], [1, 2], [1, 2, 3, 5]], 2, id="a prefix before a difference"),
        pytest.param([[5, 6, 7]], None, id="a single configuration"),
        pytest.param([[5, 6, 7], None, [5, 6, 7]], None, id="a missing cell is skipped"),
        pytest.param([None, [5, 6], [5, 8]], 1, id="the first cell is missing"),
        pytest.param([None, None], None, id="all missing"),
        pytest.param([], None, id="no configuration"),
    ],
)
def test_divergence_index_by_hand(responses: list[list[int] | None], index: int | None) -> None:
    assert metrics.divergence_index(responses) == index


short_responses = st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=2, max_size=5)


@given(short_responses)
def test_divergence_index_is_the_length_of_the_common_prefix(responses: list[list[int]]) -> None:
    # The definition, position by position: all have a token there and it is the same.
    common = 0
    while all(len(r) > common and r[common] == responses[0][common] for r in responses):
        common += 1
    equal = all(r == responses[0] for r in responses)
    assert metrics.divergence_index(responses) == (None if equal else common)


@given(short_responses, st.randoms())
def test_divergence_index_does_not_depend_on_the_order(responses: list[list[int]], random) -> None:
    shuffled = list(responses)
    random.shuffle(shuffled)
    assert metrics.divergence_index(shuffled) == metrics.divergence_index(responses)


STUDY = [
    [[1, 2, 3], [1, 2, 3], [1, 2, 3]],  # the same everywhere
    [[1, 2, 3], [1, 2, 4], [1, 2, 3]],  # parts at 2
    [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5], None],  # parts at 5, where the second has ended
    [[7], None, None],  # a single answer cannot differ from another
]


def test_div_percent_and_div_index_by_hand() -> None:
    # Of the three problems with two answers or more, two diverge: 2/3. Their indices are 2 and 5:
    # mean 3.5.
    assert metrics.divergence_indices(STUDY) == [None, 2, 5, None]
    assert metrics.div_percent(STUDY) == pytest.approx(200 / 3, rel=1e-15)
    assert metrics.mean_divergence_index(STUDY) == 3.5


def test_div_index_is_minus_one_when_nothing_diverges() -> None:
    assert metrics.mean_divergence_index(STUDY[:1]) == -1.0
    assert metrics.div_percent(STUDY[:1]) == 0.0


def test_metrics_of_no_problems_are_undefined_not_zero() -> None:
    assert math.isnan(metrics.div_percent([]))
    assert math.isnan(metrics.avg_std_output_length([]))
    assert math.isnan(metrics.avg_std_top1_prob([], []))
    assert math.isnan(metrics.pass_at_1([]))
    assert math.isnan(metrics.bit_div_percent([], []))
    assert metrics.mean_divergence_index([]) == -1.0


def test_avg_std_output_length_by_hand() -> None:
    # First problem: 10, 12, 14: squares 4 + 0 + 4 = 8, over 2: 4, root 2.
    # Second: 5, 5, missing: 0. Third: one answer only, no spread to speak of. Mean of 2 and 0: 1.
    assert metrics.avg_std_output_length([[10, 12, 14], [5, 5, None], [9, None, None]]) == 1.0


def test_avg_std_top1_prob_takes_positions_up_to_the_divergence_index_inclusive() -> None:
    # Index 1, so positions 0 and 1; position 2 follows different prefixes and does not count.
    # Position 0: 0.5 and 0.5: 0. Position 1: 0.25 and 0.75: deviations 0.25, squares 0.125, over
    # n - 1 = 1, root sqrt(0.125). Mean of the two: sqrt(0.125) / 2.
    probabilities = [[[0.5, 0.25, 0.9], [0.5, 0.75, 0.1]]]
    responses = [[[5, 6, 7], [5, 8, 7]]]
    expected = math.sqrt(0.125) / 2
    assert metrics.avg_std_top1_prob(probabilities, responses) == pytest.approx(expected, rel=1e-15)


def test_avg_std_top1_prob_of_a_problem_that_never_diverges_takes_every_position() -> None:
    # Spread sqrt(0.125) at positions 1 and 2, 0 at position 0: mean 2/3 of it.
    probabilities = [[[0.5, 0.25, 0.25], [0.5, 0.75, 0.75]]]
    responses = [[[5, 6, 7], [5, 6, 7]]]
    expected = 2 / 3 * math.sqrt(0.125)
    assert metrics.avg_std_top1_prob(probabilities, responses) == pytest.approx(expected, rel=1e-15)


def test_avg_std_top1_prob_averages_problems_not_positions() -> None:
    # One problem of one position with spread s, one of three positions with spread 0: s / 2.
    s = math.sqrt(0.125)
    probabilities = [[[0.25], [0.75]], [[0.5] * 3, [0.5] * 3]]
    responses = [[[5], [5]], [[5, 6, 7], [5, 6, 7]]]
    assert metrics.avg_std_top1_prob(probabilities, responses) == pytest.approx(s / 2, rel=1e-15)


def test_avg_std_top1_prob_where_one_response_has_ended() -> None:
    # Three responses; the first ended at 1, the divergence index. At 1 the other two are compared.
    # Position 0: 0.5 three times: 0. Position 1: 0.25, 0.75: s. Mean: s / 2.
    s = math.sqrt(0.125)
    rows = [[[0.5], [0.5, 0.25], [0.5, 0.75]]]
    responses = [[[5], [5, 6], [5, 6]]]
    assert metrics.avg_std_top1_prob(rows, responses) == pytest.approx(s / 2, rel=1e-15)
    # With two responses nothing is left to compare at 1: only position 0 counts.
    assert metrics.avg_std_top1_prob([[[0.5], [0.5, 0.25]]], [[[5], [5, 6]]]) == 0.0


def test_avg_std_top1_prob_shows_a_nan_rather_than_dropping_it() -> None:
    assert math.isnan(metrics.avg_std_top1_prob([[[math.nan], [0.5]]], [[[5], [5]]]))


@pytest.mark.parametrize(
    "responses",
    [
        pytest.param([[[5], [5]], [[5], [5]]], id="another number of problems"),
        pytest.param([[[5]]], id="another number of configurations"),
        pytest.param([[[5, 6], [5]]], id="another length"),
        pytest.param([[[5], None]], id="a cell is missing in one alone"),
        pytest.param([1], id="divergence indices"),
        pytest.param([None], id="a divergence index of none"),
        pytest.param(None, id="none"),
        pytest.param([[5, 5]], id="one problem alone"),
    ],
)
def test_avg_std_top1_prob_refuses_other_answers_than_the_probabilities_are_of(
    responses: object,
) -> None:
    with pytest.raises(ShapeError, match="avg_std_top1_prob: `responses` must"):
        metrics.avg_std_top1_prob([[[0.5], [0.5]]], responses)


def test_avg_std_top1_prob_takes_arrays() -> None:
    probabilities = np.array([[[0.25], [0.75]]])
    value = metrics.avg_std_top1_prob(probabilities, np.array([[[5], [5]]]))
    assert value == pytest.approx(math.sqrt(0.125), rel=1e-15)


def test_pass_at_1_by_hand() -> None:
    # 2 of 4, 0 of 2, 1 of 1 (one sample missing): mean of 0.5, 0, 1 is 0.5.
    grades = [[True, True, False, False], [False, False], [True, None], [None]]
    assert metrics.pass_at_1(grades) == 50.0


def digests(*rows: list[int]) -> list[np.ndarray]:
    return [np.array(row, dtype=np.uint64) for row in rows]


@pytest.mark.parametrize(
    ("rows", "index", "first", "compared"),
    [
        pytest.param(digests([1, 2, 3], [1, 2, 3]), None, None, 3, id="equal"),
        # The tokens never part, but the bits do at 1.
        pytest.param(digests([1, 2, 3], [1, 9, 3]), None, 1, 3, id="bits alone differ"),
        # Past the divergence index the prefixes differ, so different bits say nothing.
        pytest.param(digests([1, 2, 3], [1, 2, 9]), 1, None, 2, id="only after the index"),
        pytest.param(digests([1, 2, 3], [1, 9, 3]), 1, 1, 2, id="at the index itself"),
        # The first has ended at 1; the others differ there.
        pytest.param(digests([1], [1, 2], [1, 3]), 1, 1, 2, id="at an end, others differ"),
        pytest.param(digests([1], [1, 2], [1, 2]), 1, None, 2, id="at an end, others agree"),
        pytest.param(digests([1], [1, 2]), 1, None, 1, id="at an end, nothing to compare"),
        pytest.param(digests([1, 2]), None, None, 0, id="a single configuration"),
        pytest.param([None, *digests([1], [2])], None, 0, 1, id="missing cell"),
        pytest.param([None, None], None, None, 0, id="all missing"),
        # Equal as floats after rounding to 53 bits, unequal as integers.
        pytest.param(digests([2**63], [2**63 + 1]), None, 0, 1, id="compared as integers"),
    ],
)
def test_bit_divergence_by_hand(rows, index, first, compared) -> None:
    assert metrics.first_bit_divergence(rows, index) == first
    assert metrics.compared_positions(rows, index) == compared


def test_bit_div_percent_by_hand() -> None:
    # The first of two problems differs in a bit: 50 %.
    table = [digests([1, 2], [1, 3]), digests([4], [4])]
    assert metrics.bit_div_percent(table, [None, None]) == 50.0
    # A problem with one answer has nothing to be compared with, and is not counted.
    incomplete = [*table, [None, *digests([4])]]
    assert metrics.bit_div_percent(incomplete, [None, None, None]) == 50.0


def test_shares_of_problems_without_two_answers_are_undefined() -> None:
    assert math.isnan(metrics.div_percent([[[7], None], [None, None]]))
    assert math.isnan(metrics.bit_div_percent([[None, *digests([4])]], [None]))


def test_metrics_need_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, layercast.study.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
