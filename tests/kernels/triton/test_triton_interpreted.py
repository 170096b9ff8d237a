"""The Triton kernels' bits against the reference, in Triton's interpreter, without a GPU.

See interpreted_cases.py for what this shows, and what it cannot.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is published for x86-64 Linux only")

PROGRAM = Path(__file__).with_name("interpreted_cases.py")
CASES = (
    "elementwise",
    "linear",
    "linear_part_and_join_parts",
    "rows",
    "embedding_and_rotary",
    "key_order",
    "attention",
    "paged_attention",
    "experts",
    "sample",
    "what_has_no_meaning_fails_closed",
    "packed_sequences_that_do_not_fit_are_nan",
)


@pytest.fixture(scope="module")
def verdicts():
    """Of one child process: Triton reads TRITON_INTERPRET when it is imported."""
    child = subprocess.run(
        [sys.executable, PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
    )
    assert child.returncode == 0, child.stderr[-3000:]
    return dict(json.loads(line) for line in child.stdout.splitlines())


def test_every_case_was_run(verdicts):
    assert set(verdicts) == {*CASES, "control"}


@pytest.mark.parametrize("name", CASES)
def test_bits_of_the_reference(verdicts, name):
    assert verdicts[name]["compared"] > 0
    assert verdicts[name]["difference"] == ""


def test_another_order_of_the_products_is_seen(verdicts):
    """The control: with numpy's own product in the same kernel the bits differ."""
    assert verdicts["control"]["difference"] != ""
