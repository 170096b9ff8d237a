"""Contract under test: whatever kills a run, and however often, its records end up the same.

Fifty kills are part of every test run, a thousand of the exhaustive one.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from study_process import (
    STUB_BATCHES,
    WIDEST,
    StudyProcess,
    all_answers,
    batch_files,
    make_stub_plan,
    wait_for_batches,
    wait_until_gone,
    worker_pids,
)

from layercast.study import records

#: Chains of kills at once: one a core of the smallest machine.
CHAINS = 2
WORKERS = [f"{name}/{WIDEST}-t1" for name in ("bf16", "layercast")]


@dataclass
class Tally:
    """What a chain of kills went through."""

    interrupted: int = 0
    in_a_write: int = 0
    full_disks: int = 0
    finished_runs: int = 0


def test_fifty_kills_at_random_moments_change_no_record(
    uninterrupted: Path, tmp_path: Path
) -> None:
    kill_and_compare(uninterrupted, tmp_path, kills=50)


@pytest.mark.slow
def test_a_thousand_kills_at_random_moments_change_no_record(
    uninterrupted: Path, tmp_path: Path
) -> None:
    kill_and_compare(uninterrupted, tmp_path, kills=1000)


def kill_and_compare(uninterrupted: Path, tmp_path: Path, *, kills: int) -> None:
    expected = all_answers(uninterrupted)
    plan = make_stub_plan(tmp_path / "stub-model")
    with ThreadPoolExecutor(CHAINS) as pool:
        chains = [
            pool.submit(chain, plan, tmp_path / f"chain{n}", expected, kills // CHAINS, n)
            for n in range(CHAINS)
        ]
        tallies = [done.result() for done in chains]
    assert sum(tally.interrupted for tally in tallies) == kills
    # The control: kills did fall into writes, and disks were full.
    assert sum(tally.in_a_write for tally in tallies) >= kills // 25
    assert sum(tally.full_disks for tally in tallies) >= kills // 50
    assert all(tally.finished_runs for tally in tallies)


def chain(
    plan: dict[str, Any], folder: Path, expected: dict[str, pa.Table], kills: int, seed: int
) -> Tally:
    """Interrupt runs until enough; compare each that gets to its end, and start another."""
    rng = random.Random(seed)
    study, tally, number = StudyProcess(plan), Tally(), 0
    while tally.interrupted < kills:
        out = folder / f"run{number}"
        before = batch_files(out)
        interrupt(study, out, rng, tally)
        after = batch_files(out)
        # A batch that was there is there, to the byte; one that is there is whole.
        assert {name: after.get(name) for name in before} == before
        assert all(records.batch_state(out / name) is not None for name in after)
        tally.in_a_write += bool(list(out.rglob("*.partial")))
        if len(after) >= rng.randint(STUB_BATCHES // 2, STUB_BATCHES):
            finish(study, out, expected)
            tally.finished_runs += 1
            number += 1
    finish(study, out, expected)
    tally.finished_runs += 1
    return tally


def interrupt(study: StudyProcess, out: Path, rng: random.Random, tally: Tally) -> None:
    """Start the run and end it before its time, in one of several ways."""
    ways = ["runner"] * 6 + ["worker then runner"] * 2 + ["in a write", "full disk"]
    way, worker = rng.choice(ways), rng.choice(WORKERS)
    faults = {"in a write": "kill-runner-in-write", "full disk": "disk-full"}
    settings = {
        "STUB_STEP_SECONDS": str(rng.choice((0.0, 0.002, 0.01))),
        "STUB_WRITE_SECONDS": str(rng.choice((0.0, 0.02, 0.08))),
        "STUDY_RETRIES": "1",
    }
    if way in faults:
        settings["STUB_FAULT"] = f"{faults[way]}@{worker}#{rng.randrange(3)}"
    process = study.start(out, **settings)
    there = len(batch_files(out))
    if way in faults:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode in (-signal.SIGKILL, 0, 1), stderr
        tally.full_disks += way == "full disk" and process.returncode == 1
    else:
        # Some while loading, most while answers are made and written.
        wait_for_batches(out, there + rng.choice((0, 0, 1, 1, 2, 3)), process)
        time.sleep(rng.uniform(0.0, 0.25))
        workers = worker_pids(process.pid)
        if way == "worker then runner" and workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
            time.sleep(rng.uniform(0.0, 0.5))
            workers += worker_pids(process.pid)
        process.kill()
        process.communicate()
        assert wait_until_gone(workers)
    tally.interrupted += 1


def finish(study: StudyProcess, out: Path, expected: dict[str, pa.Table]) -> None:
    """Let the run come to its end, and compare."""
    finished = batch_files(out)
    status, result, stderr = study.run(out)
    assert (status, result["complete"], stderr) == (0, True, "")
    assert result["kept"] == len(finished)
    assert len(batch_files(out)) == STUB_BATCHES
    assert not list(out.rglob("*.partial"))
    assert all_answers(out) == expected
