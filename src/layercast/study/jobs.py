"""The work of a run, cut into workers and batches by the plan alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from layercast.errors import RecordError
from layercast.study.records import answer_count, batch_path
from layercast.study.resolution import Configuration, ResolvedPlan


class Batch(BaseModel):
    """One batch: problems ``index * batch_size`` up to the next multiple, in the plan's order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int
    index: int
    answers: int


class Job(BaseModel):
    """What one worker process does: one precision on one instruction set and thread count.

    The model is loaded once and serves `batches` in order. `engine` and `task` are as in
    `layercast.study.runner.Launch`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    model_path: Path
    engine: str
    task: str
    precision: str
    instruction_set: str
    threads: int
    max_new_tokens: int
    top_k: int
    batches: tuple[Batch, ...]

    @property
    def name(self) -> str:
        """Name of the worker in messages and in the manifest, e.g. ``bf16/avx512-t1``."""
        return f"{self.precision}/{self.instruction_set}-t{self.threads}"

    @property
    def log_path(self) -> Path:
        """Where the worker's standard error goes."""
        return self.folder / "logs" / f"{self.name.replace('/', '-')}.log"

    def config_id(self, batch: Batch) -> str:
        """Return the configuration a batch belongs to."""
        return Configuration(self.instruction_set, self.threads, batch.batch_size).id

    def batch_path(self, batch: Batch) -> Path:
        """Return the file a batch's answers go to."""
        return batch_path(self.folder, self.precision, self.config_id(batch), batch.index)


def plan_jobs(
    resolved: ResolvedPlan, problem_count: int, *, folder: Path, engine: str, task: str
) -> list[Job]:
    """Return every worker of a run with all its batches, those of fewer threads first.

    One-thread workers, which keep a core busy each, come first; the order within is the plan's.
    """
    workers = dict.fromkeys((c.threads, c.instruction_set) for c in resolved.configurations)
    decoding = resolved.plan.decoding
    return [
        Job(
            folder=folder,
            model_path=resolved.model_path,
            engine=engine,
            task=task,
            precision=precision.value,
            instruction_set=instruction_set,
            threads=threads,
            max_new_tokens=decoding.max_new_tokens,
            top_k=decoding.top_k,
            batches=tuple(
                batch
                for batch_size in resolved.plan.axes.batch_sizes
                for batch in plan_batches(problem_count, batch_size)
            ),
        )
        for threads, instruction_set in sorted(workers, key=lambda worker: worker[0])
        for precision in resolved.precisions
    ]


def plan_batches(problem_count: int, batch_size: int) -> Iterator[Batch]:
    """Yield the batches of one configuration: the problems in order, the last batch shorter."""
    for index, first in enumerate(range(0, problem_count, batch_size)):
        yield Batch(
            batch_size=batch_size, index=index, answers=min(batch_size, problem_count - first)
        )


def unfinished(job: Job) -> Job:
    """Return the job with only those batches that have no file yet.

    Raises:
        RecordError: a batch's file is damaged or does not hold the answers the plan says.
    """
    left = []
    for batch in job.batches:
        path = job.batch_path(batch)
        count = answer_count(path)
        if count is None:
            left.append(batch)
        elif count != batch.answers:
            raise RecordError(
                f"study run: `{path}` must hold {batch.answers} answers, got {count}. "
                "Delete it and start the run again to compute it anew."
            )
    return job.model_copy(update={"batches": tuple(left)})
