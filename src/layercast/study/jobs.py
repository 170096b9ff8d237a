"""The work of a run, cut into workers and batches by the plan alone."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from layercast.errors import RecordError
from layercast.study.batches import Batch, batch_seed, plan_batches
from layercast.study.configuration import ENDPOINT, Configuration
from layercast.study.decoding import Decoding
from layercast.study.engine_settings import EngineSettings
from layercast.study.engines import Draws, Opening
from layercast.study.records import batch_path, batch_state
from layercast.study.resolution import ResolvedPlan
from layercast.study.task_settings import TaskSettings


class Job(BaseModel):
    """What one worker process does: one precision at what is fixed when a process starts.

    The model is loaded once and serves `batches` in order. `configuration` is any of the job's: of
    it only what `Configuration.worker_id` names counts. `engine` and `task` are as in
    `layercast.study.pool.Launch`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    model: str
    model_path: Path | None
    engine: str
    settings: EngineSettings
    task: str
    task_options: TaskSettings = TaskSettings()
    code_isolation: str | None = None
    precision: str
    configuration: Configuration
    decoding: Decoding
    seed: int
    batches: tuple[Batch, ...]

    @property
    def name(self) -> str:
        """Name of the worker in messages and in the manifest, e.g. ``bf16/avx512-t1``."""
        return f"{self.precision}/{self.configuration.worker_id}"

    @property
    def remote(self) -> bool:
        """Whether a server computes."""
        return self.configuration.instruction_set == ENDPOINT

    @property
    def place(self) -> tuple[str, int]:
        """Instruction set and threads, which the worker's environment decides."""
        return self.configuration.instruction_set, self.configuration.threads

    @property
    def log_path(self) -> Path:
        """Where the worker's standard error goes."""
        return self.folder / "logs" / f"{self.name.replace('/', '-')}.log"

    @property
    def opening(self) -> Opening:
        """What the engine is opened with."""
        return Opening(
            model=self.model,
            model_path=self.model_path,
            precision=self.precision,
            threads=self.configuration.threads,
            attention=self.configuration.attention,
            kv_dtype=self.configuration.kv_dtype,
            tensor_parallel=self.configuration.tensor_parallel,
            settings=self.settings,
        )

    def batch_path(self, batch: Batch) -> Path:
        """Return the file a batch's answers go to."""
        return batch_path(self.folder, self.precision, batch.config_id, batch.index)

    def draws(self, batch: Batch) -> Draws | None:
        """Return how a batch is drawn; None if it is decoded greedily."""
        decoding = self.decoding
        if decoding.method == "greedy":
            return None
        assert decoding.temperature is not None
        assert decoding.top_p is not None
        assert decoding.generator is not None
        return Draws(
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            generator=decoding.generator,
            seed=self.seed,
            batch_seed=batch_seed(self.seed, batch.index),
        )

    def without(self, config_id: str) -> Job:
        """Return the job without the batches of one configuration."""
        left = tuple(batch for batch in self.batches if batch.config_id != config_id)
        return self.model_copy(update={"batches": left})


def plan_jobs(
    resolved: ResolvedPlan,
    problem_count: int,
    *,
    folder: Path,
    engine: str,
    task: str,
    code_isolation: str | None = None,
) -> list[Job]:
    """Return every worker of a run with all its batches, those of fewer threads first.

    One-thread workers, which keep a core busy each, come first; the order within is the plan's.
    """
    plan = resolved.plan
    workers: dict[str, list[Configuration]] = {}
    for configuration in resolved.configurations:
        workers.setdefault(configuration.worker_id, []).append(configuration)
    answers = problem_count * plan.decoding.answers_per_problem
    return [
        Job(
            folder=folder,
            model=plan.model,
            model_path=resolved.model_path,
            engine=engine,
            settings=plan.engine,
            task=task,
            task_options=plan.task_options,
            code_isolation=code_isolation,
            precision=precision.value,
            configuration=served[0],
            decoding=plan.decoding,
            seed=plan.seed,
            batches=tuple(
                b for configuration in served for b in plan_batches(configuration, answers)
            ),
        )
        for served in sorted(workers.values(), key=lambda served: served[0].threads)
        for precision in resolved.precisions
    ]


def unfinished(job: Job, *, retry_failed: bool = False) -> Job:
    """Return the job with only those batches that are still to be made.

    Args:
        job: With all its batches.
        retry_failed: Whether batches are to be made again in which an answer never arrived.

    Raises:
        RecordError: a batch's file is damaged or does not hold the answers the plan says.
    """
    left = []
    for batch in job.batches:
        path = job.batch_path(batch)
        state = batch_state(path, count_failed=retry_failed)
        if state is None or state.failed:
            left.append(batch)
        elif state.answers != batch.answers:
            raise RecordError(
                f"study run: `{path}` must hold {batch.answers} answers, got {state.answers}. "
                "Delete it and start the run again to compute it anew."
            )
    return job.model_copy(update={"batches": tuple(left)})
