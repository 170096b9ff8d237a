"""A run whose records are written answer by answer, so that every figure can be worked by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from layercast.study import records
from layercast.study.summary import PrecisionSummary, summarise

PROBLEMS = ("a", "b")


def answer(config: str, problem: str, tokens: list[int], **fields: Any) -> dict[str, Any]:
    """Return a record with two candidates a position: probability 1/2 and 1/4."""
    isa, threads, batch = config.split("-")
    n = len(tokens)
    top = fields.pop("top", [[math.log(0.5), math.log(0.25)]] * n)
    return {
        "problem_id": problem,
        "precision": "bf16",
        "config_id": config,
        "isa": isa,
        "threads": int(threads[1:]),
        "batch_size": int(batch[1:]),
        "batch_index": 0,
        "batch_position": PROBLEMS.index(problem),
        "prompt_digest": f"digest of {problem}",
        "prompt_tokens": 3,
        "token_ids": tokens,
        "logprobs": [row[0] for row in top],
        "top_ids": [t for token in tokens for t in (token, 0)],
        "top_logprobs": [value for row in top for value in row],
        "top_k": 2,
        "logprob_digests": fields.pop("digests", [1] * n),
        "text": "",
        "answer": "",
        "expected": "",
        "correct": fields.pop("correct", True),
        "finish_reason": "stop",
        "output_length": n,
        "batch_seconds": 1.0,
        **fields,
    }


def make_blank_run(finished_run: Path, folder: Path) -> Path:
    """Make a run folder of two problems, `PROBLEMS`, and no records yet.

    Args:
        finished_run: The run whose manifest it gets, but for the configurations.
        folder: To be made.
    """
    folder.mkdir()
    manifest = json.loads((finished_run / "manifest.json").read_text())
    manifest["resolved"]["configurations"] = ["avx2-t1-b8", "avx2-t1-b16"]
    manifest["resolved"]["plan"]["precisions"] = ["bf16"]
    manifest["resolved"]["notes"] = []
    (folder / "manifest.json").write_text(json.dumps(manifest))
    records.write_problems(
        folder,
        [
            {
                "problem_id": name,
                "question": name,
                "expected": "",
                "prompt": name,
                "prompt_digest": f"digest of {name}",
                "prompt_ids": [1, 2, 3],
            }
            for name in PROBLEMS
        ],
    )
    return folder


def write(folder: Path, *rows: dict[str, Any]) -> None:
    """Write records, those of a configuration as its one batch."""
    for config in {row["config_id"] for row in rows}:
        own = [row for row in rows if row["config_id"] == config]
        records.write_batch(records.batch_path(folder, "bf16", config, 0), own)


def only(folder: Path) -> PrecisionSummary:
    """Return the summary of the one precision there is."""
    (precision,) = summarise([folder]).precisions
    return precision


def plan_configurations(folder: Path, *configurations: str) -> None:
    edit_manifest(folder, lambda tree: tree["resolved"].update(configurations=configurations))


def edit_plan(folder: Path, **changes: Any) -> None:
    edit_manifest(folder, lambda tree: tree["resolved"]["plan"].update(changes))


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
