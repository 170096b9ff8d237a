"""A small study in a process of its own, and how to watch it, kill it and read what it left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

import layercast
from layercast.study import records
from layercast.study.instruction_sets import available

HERE = Path(__file__).resolve().parent
SOURCE = Path(layercast.__file__).resolve().parents[1]

#: The instruction set that the small study runs in: the widest of this machine.
WIDEST = available()[-1]


@dataclass
class StudyProcess:
    """A small study, run in a process of its own."""

    plan: dict[str, Any]
    engine: str = "stub"
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, out: Path, **environment: str) -> subprocess.Popen[str]:
        """Start the run; `environment` holds the stub's settings."""
        path = os.pathsep.join([str(SOURCE), str(HERE)])
        process = subprocess.Popen(
            [
                sys.executable,
                str(HERE / "run_in_process.py"),
                str(out),
                json.dumps(self.plan),
                self.engine,
            ],
            env={**os.environ, "PYTHONPATH": path, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def run(self, out: Path, **environment: str) -> tuple[int, dict[str, Any], str]:
        """Run to the end; return exit status, result and standard error."""
        process = self.start(out, **environment)
        stdout, stderr = process.communicate(timeout=300)
        return process.returncode, json.loads(stdout) if stdout else {}, stderr


def make_stub_plan(model: Path) -> dict[str, Any]:
    """Return a plan of 20 answers in 8 batches for each of two precisions."""
    model.mkdir()
    (model / "config.json").write_text("{}")
    return {
        "model": str(model),
        "task": "bundled",
        "problems": 10,
        "precisions": ["bf16", "layercast"],
        "axes": {
            "instruction_sets": [WIDEST],
            "threads": [1],
            "batch_sizes": [2, 4],
        },
        "decoding": {"max_new_tokens": 6, "top_k": 3},
    }


#: 2 precisions x (10 / 2 + ceil(10 / 4)) batches.
STUB_BATCHES = 16


def all_answers(folder: Path) -> dict[str, pa.Table]:
    """Return every answer by precision, without timings."""
    return {
        name: records.read_answers(folder, precision=name).drop_columns(
            list(records.TIMING_COLUMNS)
        )
        for name in records.precisions(folder)
    }


def batch_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every batch file by its path in the run folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "records").rglob("*.parquet"))
    }


def wait_for_batches(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until that many batch files are there, or the process ends."""
    while len(list((folder / "records").rglob("*.parquet"))) < count and process.poll() is None:
        time.sleep(0.002)


def worker_pids(runner: int) -> list[int]:
    """Return the processes that a runner started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if entry.name.isdigit() and int(fields[1]) == runner:
            found.append(int(entry.name))
    return found


def is_running(pid: int) -> bool:
    """Say whether a process is there and more than an unreaped entry."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def wait_until_gone(pids: list[int], seconds: float = 10.0) -> bool:
    """Wait for processes to end; return whether all did."""
    deadline = time.monotonic() + seconds
    while any(map(is_running, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL a runner and wait for it."""
    process.send_signal(signal.SIGKILL)
    process.communicate()
