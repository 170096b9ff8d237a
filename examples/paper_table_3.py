"""Std@Acc by task and precision, as in table 3 of arXiv 2506.09501, of your own model.

    python examples/paper_table_3.py MODEL TASK [TASK ...] --out FOLDER

Runs a study for each task, greedily, over 12 configurations of this CPU (instruction sets x
threads x batch sizes; fewer where it has one instruction set), and prints the table. It goes on
where it was when it is started again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from layercast.study.instruction_sets import available
from layercast.study.plan import parse_plan
from layercast.study.runner import run_study
from layercast.study.summary import summarise


def std_at_acc(task: str, given: argparse.Namespace) -> dict[str, float]:
    """Run the study of one task; return Std@Acc, in percentage points, by precision."""
    plan = parse_plan(
        {
            "model": given.model,
            "task": task,
            "problems": given.problems,
            "precisions": given.precisions,
            "axes": {
                "instruction_sets": given.instruction_sets,
                "threads": given.threads,
                "batch_sizes": given.batch_sizes,
            },
            "decoding": {"max_new_tokens": given.tokens},
        }
    )
    result = run_study(
        plan, given.out / task, code_isolation="auto" if given.allow_code_execution else None
    )
    for failure in result.failures:
        print(f"{task}: {failure}")
    return {p.precision: p.std_at_acc.value for p in summarise([result.folder]).precisions}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a folder, a hub id, or testbed")
    parser.add_argument("tasks", nargs="+", help="aime24, math500, livecodebench-easy, bundled ...")
    parser.add_argument("--out", type=Path, required=True, help="holds a run folder a task")
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=4096, help="longest answer")
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp16", "fp32", "layercast"])
    parser.add_argument("--instruction-sets", nargs="+", default=available())
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument(
        "--allow-code-execution", action="store_true", help="for livecodebench: run its programs"
    )
    return parser.parse_args()


def main() -> None:
    """Run every task and print the table."""
    given = arguments()
    table = {task: std_at_acc(task, given) for task in given.tasks}
    print("| Std@Acc, points |", " | ".join(given.precisions), "|")
    print("| --- |", " | ".join("---:" for _ in given.precisions), "|")
    for task, row in table.items():
        print(f"| {task} |", " | ".join(f"{row[name]:.2f}" for name in given.precisions), "|")


if __name__ == "__main__":
    main()
