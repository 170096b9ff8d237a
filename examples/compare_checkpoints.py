"""Two checkpoints over the same problems: which is better, and could it be the choice of problems?

    python examples/compare_checkpoints.py RUN_A/records/layercast RUN_B/records/layercast

Each run holds one configuration. In layercast arithmetic another one would have the same answers,
so that the difference is the checkpoints' and not the batch's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from layercast.study.bootstrap import Bootstrap
from layercast.study.paired import PairedDifference, paired_difference
from layercast.study.pairing import pair_answers


def difference(left: Path, right: Path) -> PairedDifference:
    """Compare the grades of two folders of records, `right` less `left`, in percentage points."""
    pairs = pair_answers(left, right).pairs
    names = list(dict.fromkeys(pair.problem_id for pair in pairs))
    # Under sampling a problem has several answers; it counts once, with their mean.
    grades = [
        np.array([np.mean([p.correct[side] for p in pairs if p.problem_id == n]) for n in names])
        for side in (0, 1)
    ]
    return paired_difference(
        (str(left), grades[0]), (str(right), grades[1]), Bootstrap(len(names)), scale=100
    )


def main() -> None:
    """Print the difference with its interval and the p-value of the sign-flip test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("left", type=Path, help="records of the first checkpoint")
    parser.add_argument("right", type=Path, help="records of the second")
    given = parser.parse_args()
    found = difference(given.left, given.right)
    print(
        f"accuracy of the second less the first: {found.difference.value:+.1f} points "
        f"(95 % interval {found.difference.low:+.1f} to {found.difference.high:+.1f}), "
        f"p = {found.p_value:.4f}; graded otherwise: {found.problems} problems"
    )


if __name__ == "__main__":
    main()
