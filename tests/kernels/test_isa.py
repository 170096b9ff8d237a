"""Contract under test: no instruction set and no number of threads changes a bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from digest_cases import digests

from layercast import ops

SCRIPT = Path(__file__).with_name("digest_cases.py")


def run(isa, *threads):
    environment = {**os.environ, "LAYERCAST_ISA": isa}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, threads)],
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def here():
    return digests()


@pytest.mark.parametrize("isa", ops.available_isas())
def test_every_isa_and_thread_count_gives_the_same_bits(isa, here):
    result = run(isa, 1, 2, 5)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["isa"] == isa
    for threads in ("1", "2", "5"):
        found = answer["digests"][threads]
        assert [name for name in here if found[name] != here[name]] == []


def test_scalar_is_always_available_and_the_best_is_first():
    assert ops.available_isas()[-1] == "scalar"
    if "LAYERCAST_ISA" not in os.environ:
        assert ops.isa() == ops.available_isas()[0]


def test_an_unavailable_isa_is_an_error_that_names_the_available():
    missing = next(isa for isa in ("neon", "avx512", "avx2") if isa not in ops.available_isas())
    result = run(missing)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert "BackendError" in last
    assert repr(missing) in last
    assert ", ".join(ops.available_isas()) in last


def test_an_unknown_isa_is_an_error_that_names_the_known():
    result = run("avx9000")
    assert result.returncode != 0
    assert "known names: scalar, avx2, avx512, neon" in result.stderr


def test_the_digests_are_not_all_alike(here):
    """The control: a digest that ignored its input could not differ."""
    assert len(set(here.values())) > len(here) // 2
