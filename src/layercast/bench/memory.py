"""Load time and memory of each variant's model, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch

from layercast.bench.case import Case, Facts, Prepared, Variant
from layercast.bench.timing import Schedule
from layercast.bench.workspace import Workspace
from layercast.errors import EnvironmentSetupError

SCHEDULE = Schedule(warmup_rounds=0, rounds_min=3, rounds_max=3)


@dataclass
class LoadTurn:
    """Starts a process that loads and decodes; a sample is its load time.

    Attributes:
        folder: The checkpoint; its files are in the page cache.
        variant: Whose model.
        tokens: Decoded before memory is read.
        seen: What each process reported.
    """

    folder: Path
    variant: Variant
    tokens: int
    seen: list[dict[str, float]] = field(default_factory=list)

    def __call__(self) -> float:
        """Take the turn."""
        command = [sys.executable, "-m", "layercast.bench.memory_process"]
        arguments = [self.folder, self.variant, self.tokens, torch.get_num_threads()]
        done = subprocess.run(
            [*command, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise EnvironmentSetupError(
                f"bench: a process that loads {self.variant} must end well, got: {reason}. "
                "Free memory, or leave the case out with `--only`."
            )
        report: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        self.seen.append(report)
        return report["load_seconds"]


def prepare_memory(case: Case, workspace: Workspace) -> Prepared:
    """Make the checkpoint; each turn starts a process.

    Args:
        case: rows is the batch; size tokens, those decoded.
        workspace: Holds the checkpoint.
    """
    turns = {
        variant: LoadTurn(workspace.checkpoint(), variant, case.size("tokens"))
        for variant in case.variants
    }

    def after() -> Facts:
        return {
            "memory_bytes": {
                variant: {
                    name: max(int(report[name]) for report in turn.seen)
                    for name in turn.seen[0]
                    if name.endswith("_bytes")
                }
                for variant, turn in turns.items()
            }
        }

    weights = sum(file.stat().st_size for file in workspace.checkpoint().glob("*.safetensors"))
    return Prepared(
        turns=turns,
        check=dict,
        facts={"checkpoint_bytes": weights},
        schedule=SCHEDULE,
        after=after,
    )
