"""Contract under test: bits do not depend on the instruction set, the threads or the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from layercast import ops

HERE = Path(__file__).parent


def start(checkpoints, threads: int, **environment: str) -> subprocess.Popen:
    folders = [f"{name}={folder}" for name, folder in checkpoints.items()]
    return subprocess.Popen(
        [sys.executable, str(HERE / "digest_process.py"), str(threads), *folders],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> dict:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return json.loads(out)


@pytest.fixture(scope="module")
def processes(checkpoints):
    """(instruction set, threads) to what that process printed; stock arithmetic follows along."""
    results = {}
    stock_isa = {"avx512": "avx512", "avx2": "avx2"}
    for isa in ops.available_isas():
        # Two processes at a time: the machine the tests are meant for has two cores.
        running = {
            threads: start(
                checkpoints,
                threads,
                LAYERCAST_ISA=isa,
                ATEN_CPU_CAPABILITY=stock_isa.get(isa, "default"),
            )
            for threads in (1, 2)
        }
        results |= {(isa, threads): finish(process) for threads, process in running.items()}
    return results


def test_each_process_used_the_instruction_set_it_was_told(processes):
    assert all(result["isa"] == isa for (isa, _), result in processes.items())
    assert len(processes) >= 4


def test_layercast_digests_are_the_same_in_every_process(processes):
    first, *others = (result["layercast"] for result in processes.values())
    assert all(other == first for other in others)


def test_stock_digests_are_not(processes):
    # The control: the same processes, the same comparison, stock arithmetic.
    first, *others = (result["stock"] for result in processes.values())
    assert any(other != first for other in others)


def test_an_instruction_set_that_is_not_there_is_refused():
    process = start({}, 1, LAYERCAST_ISA="none-such")
    _, err = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "BackendError" in err
