"""Contract under test: between kernels, a model on a CUDA device does what it does on the CPU.

Without a device: see simulated_cuda.py for what stands for one, and simulated_cuda_cases.py for
what is run there. A step with a static cache waits for the device once, to check its positions,
and while it is captured as a graph never; the graph's replays have the bits of the CPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import CONFIGS

PROGRAM = Path(__file__).with_name("simulated_cuda_cases.py")
WINDOWS = ("qwen2_hybrid", "mistral", "gemma2", "gemma3")
# The length that its rope scaling was fixed for is looked at, too.
WAITS = {"phi3": 2}


@pytest.fixture(scope="module")
def outcomes():
    """Of one child process: the simulation changes functions of torch."""
    child = subprocess.run(
        [sys.executable, PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert child.returncode == 0, child.stderr[-3000:]
    return dict(json.loads(line) for line in child.stdout.splitlines() if line.startswith("["))


@pytest.mark.parametrize("architecture", sorted(set(CONFIGS) - set(WINDOWS)))
def test_a_captured_step_goes_on_with_the_bits_of_the_cpu(outcomes, architecture):
    outcome = outcomes[f"captured {architecture}"]
    assert outcome["differing"] == 0
    assert len(outcome["waits"]) == WAITS.get(architecture, 1)


@pytest.mark.parametrize("architecture", sorted(set(CONFIGS) - set(WINDOWS)))
def test_a_replay_at_a_wrong_position_is_nan(outcomes, architecture):
    assert outcomes[f"captured {architecture}"]["spoilt"] == [False, True]


@pytest.mark.parametrize("architecture", WINDOWS)
def test_a_capture_that_would_not_go_on_is_refused(outcomes, architecture):
    refused = "layercast: the key/value cache must be a StaticCache without sliding windows while a"
    assert outcomes[f"refused {architecture}"] == [f"{refused} CUDA graph is captured"] * 2


@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_every_way_of_decoding_has_the_bits_of_the_cpu(outcomes, architecture):
    assert outcomes[f"decoding {architecture}"] == []


@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_continuous_batching_reads_a_step_once_before_it_and_once_after(outcomes, architecture):
    outcome = outcomes[f"batching {architecture}"]
    assert outcome["differing"] == []
    waits = outcome["waits"]["greedy"]
    assert waits.pop("position_checks.py") == waits.pop("paging.py") == 1
    # What is made once a request, or once.
    assert all(often <= 1 for often in waits.values())


def test_what_a_capture_cannot_hold_is_refused(outcomes):
    """The control: the simulation sees what a device would."""
    expected = ["a tensor of the CPU", "a read", "a copy", "a mask", "a count"]
    assert outcomes["controls"] == expected
