"""A plan fitted to this machine: which configurations run, on which model files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layercast.errors import PlanError, RecordError
from layercast.study import instruction_sets
from layercast.study.model_files import locate
from layercast.study.plan import InstructionSet, Plan, Precision
from layercast.tasks import load_task


@dataclass(frozen=True, order=True)
class Configuration:
    """One point of the axes."""

    instruction_set: str
    threads: int
    batch_size: int

    @property
    def id(self) -> str:
        """Name of the configuration in records, e.g. ``avx512-t2-b16``."""
        return f"{self.instruction_set}-t{self.threads}-b{self.batch_size}"

    @classmethod
    def parse(cls, config_id: str) -> Configuration:
        """Return the configuration of an `id`.

        Raises:
            RecordError: it is not one.
        """
        match = re.fullmatch(r"([a-z0-9]+)-t(\d+)-b(\d+)", config_id)
        if match is None:
            raise RecordError(
                f"records: a configuration must be named like avx512-t2-b16, got {config_id!r}. "
                "Take what does not belong there out of the run folder's records."
            )
        return cls(match[1], int(match[2]), int(match[3]))


@dataclass(frozen=True)
class ResolvedPlan:
    """What a plan comes to on this machine.

    `notes` says in whole sentences what differs from the plan as written.
    """

    plan: Plan
    model_path: Path
    configurations: tuple[Configuration, ...]
    cores: int
    notes: tuple[str, ...]

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions in the plan's order."""
        return self.plan.precisions

    def as_json(self) -> dict[str, Any]:
        """Return plain values for ``plan.json``."""
        return {
            "plan": self.plan.model_dump(mode="json"),
            "model_path": str(self.model_path),
            "configurations": [configuration.id for configuration in self.configurations],
            "cores": self.cores,
            "notes": list(self.notes),
        }


def resolve(plan: Plan) -> ResolvedPlan:
    """Fit a plan to this machine.

    A model named on the hub is downloaded if it is not there yet.

    Raises:
        PlanError: an unknown task, a model that cannot be had, or no instruction set of the plan
            on this CPU.
    """
    load_task(plan.task)
    sets, notes = _usable_instruction_sets(plan)
    cores = len(os.sched_getaffinity(0))
    beyond = [threads for threads in plan.axes.threads if threads > cores]
    if beyond:
        notes.append(
            f"This process may use {cores} core{'s' * (cores > 1)}; the configurations with "
            f"{' and '.join(map(str, beyond))} threads share them."
        )
    return ResolvedPlan(
        plan=plan,
        model_path=locate(plan.model),
        configurations=tuple(_configurations(plan, sets)),
        cores=cores,
        notes=tuple(notes),
    )


def _configurations(plan: Plan, sets: list[InstructionSet]) -> Iterator[Configuration]:
    for instruction_set in sets:
        for threads in plan.axes.threads:
            for batch_size in plan.axes.batch_sizes:
                yield Configuration(instruction_set.value, threads, batch_size)


def _usable_instruction_sets(plan: Plan) -> tuple[list[InstructionSet], list[str]]:
    here = instruction_sets.available()
    wanted = plan.axes.instruction_sets
    usable = [name for name in wanted if name.value in here]
    model = instruction_sets.cpu_model()
    if not usable:
        raise PlanError(
            f"resolve: `axes.instruction_sets` must name one that this CPU ({model}) has, got "
            f"{', '.join(wanted)}. It has {', '.join(here) or 'none that the study knows'}."
        )
    notes = []
    # No machine has more than two of them, so with two nothing is missing but other architectures.
    if len(usable) < min(2, len(wanted)):
        count = len(usable) * len(plan.axes.threads) * len(plan.axes.batch_sizes)
        notes.append(
            f"Of the plan's instruction sets ({', '.join(wanted)}) this CPU ({model}) has only "
            f"{usable[0]}: {count} configurations run."
        )
    return usable, notes
