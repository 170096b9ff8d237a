"""Contract under test: every example runs, and says what its records say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import layercast
from layercast.study.instruction_sets import available

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SOURCE = Path(layercast.__file__).resolve().parents[1]
PLAN = """
model = "testbed"
task = "bundled"
problems = 8
precisions = ["layercast"]

[axes]
threads = [1]
batch_sizes = [1, 8]

[decoding]
max_new_tokens = 4
"""


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command with `layercast` on the PATH, as if it were installed."""
    binaries = folder / "bin"
    binaries.mkdir(exist_ok=True)
    script = binaries / "layercast"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m layercast "$@"\n')
    script.chmod(0o755)
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        },
    )


def python(folder: Path, name: str, *arguments: str) -> str:
    """Run an example and return what it printed."""
    done = run([sys.executable, str(EXAMPLES / name), *arguments], folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory):
    """Return a function that runs the gate on one run folder, which the first call fills."""
    folder = tmp_path_factory.mktemp("gate")
    (folder / "plan.toml").write_text(PLAN)

    def judge(*conditions: str) -> subprocess.CompletedProcess[str]:
        command = [str(EXAMPLES / "gate_pull_request.sh"), str(folder / "plan.toml")]
        return run([*command, str(folder / "run"), *conditions], folder)

    done = judge()
    assert done.returncode == 0, done.stderr
    return folder / "run", judge


def test_gate_is_green_where_nothing_moved_and_writes_both_reports(gate):
    run_folder, _ = gate
    assert "every bit" in (run_folder / "report.md").read_text(encoding="utf-8").lower()
    assert (run_folder / "report.html").stat().st_size > 10_000


def test_gate_is_red_on_a_condition_that_holds(gate):
    _, judge = gate
    done = judge("layercast:accuracy<101")
    assert done.returncode == 1
    assert "accuracy of layercast is" in done.stdout + done.stderr


def graded(run_folder: Path, out: Path, grades: list[bool]) -> Path:
    """Copy the records of one answer after another with these grades."""
    (source,) = (run_folder / "records" / "layercast").glob("*-b8")
    shutil.copytree(source, out)
    (file,) = out.glob("*.parquet")
    table = pq.ParquetFile(file).read()
    place = table.column_names.index("correct")
    table = table.set_column(place, table.schema.field("correct"), pa.array(grades))
    pq.write_table(table, file)
    return out


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        # All 8 from wrong to right: of the 2^8 ways to sign 8 equal differences two are as far
        # from zero as this one.
        ([False] * 8, [True] * 8, ("+100.0", f"{2 / 256:.4f}", "8")),
        # One of 8: either sign is as far.
        ([True] * 7 + [False], [True] * 8, ("+12.5", "1.0000", "1")),
        ([True] * 8, [True] * 8, ("+0.0", "1.0000", "0")),
    ],
)
def test_checkpoints_are_compared_problem_by_problem(gate, tmp_path, before, after, said):
    run_folder, _ = gate
    left = graded(run_folder, tmp_path / "left", before)
    right = graded(run_folder, tmp_path / "right", after)
    text = python(tmp_path, "compare_checkpoints.py", str(left), str(right))
    found = re.search(
        r"first: (\S+) points .* p = ([\d.]+); graded otherwise: (\d+) problems", text
    )
    assert found is not None, text
    assert found.groups() == said


def test_flaky_evaluation_is_fixed(tmp_path):
    text = python(tmp_path, "fix_flaky_evaluation.py", "--problems", "4", "--tokens", "40")
    stock, fixed = text.splitlines()
    assert re.match(r"stock bf16: [0-4] of 4 answers changed", stock)
    assert fixed.startswith("layercast: 0 of 4 answers changed with the batch size; ")


def test_paper_table_has_a_row_a_task_and_a_column_a_precision(tmp_path):
    text = python(
        tmp_path, "paper_table_3.py", "testbed", "bundled", "--out", str(tmp_path / "table"),
        "--problems", "2", "--tokens", "4", "--precisions", "bf16", "layercast",
        "--instruction-sets", available()[-1], "--threads", "1", "--batch-sizes", "1", "2",
    )  # fmt: skip
    assert text.splitlines() == [
        "| Std@Acc, points | bf16 | layercast |",
        "| --- | ---: | ---: |",
        "| bundled | 0.00 | 0.00 |",  # four tokens are no answer: nothing is right anywhere
    ]


def test_readme_names_every_example_and_no_other():
    named = re.findall(r"^\| `([\w.]+)` \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    there = [file.name for file in EXAMPLES.iterdir() if file.suffix in (".py", ".sh")]
    assert sorted(named) == sorted(there)
