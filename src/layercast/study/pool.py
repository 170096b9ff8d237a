"""The workers of a run: started as their launcher allows, watched, and ended with the runner."""

from __future__ import annotations

import contextlib
import functools
import queue
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from layercast.errors import RecordError
from layercast.study.events import (
    BatchFinished,
    BatchStarted,
    Event,
    Failed,
    Ready,
    TokensGenerated,
)
from layercast.study.instruction_sets import numerical_environment
from layercast.study.jobs import Job
from layercast.study.launchers import Launcher, RunningWorker
from layercast.study.manifest import Manifest, RunEvent, WorkerState, now, write_manifest
from layercast.study.progress import ProgressListener

#: How long a worker that was asked to end may take before it is killed.
_END_SECONDS = 5.0

_Kind = Literal["out_of_memory", "crashed", "failed", "lost"]
_Outcome = Literal["retried", "given up"]


@dataclass(frozen=True)
class Launch:
    """How answers are made; tests of the runner put their own pieces here.

    Args:
        engine: Dotted path of an engine's module to use instead of the plan's.
        task: ``module:attribute`` of a task to use instead of the plan's.
    """

    engine: str | None = None
    task: str | None = None


@dataclass(frozen=True)
class WorkerFailure:
    """What was given up: which worker, why in one line, where its standard error is kept.

    `config_id` is the configuration given up, whose other batches were not tried; None if it is
    the whole worker.
    """

    worker: str
    message: str
    log: Path
    config_id: str | None = None

    def __str__(self) -> str:
        """Return one line for a person."""
        what = f" at {self.config_id}" if self.config_id else ""
        return (
            f"worker {self.worker} failed{what}: {self.message}. Its standard error is in "
            f"{self.log}; mend the cause and start the run again: finished batches are kept."
        )


@dataclass
class _Running:
    job: Job
    worker: RunningWorker
    failed: Failed | None = None
    in_hand: tuple[str, int] | None = None  # configuration and index of the batch begun
    finished: set[tuple[str, int]] = field(default_factory=set)
    reported_tokens: int = 0  # of the batch in progress

    def left(self) -> Job:
        """The job without the batches this process finished."""
        left = [b for b in self.job.batches if (b.config_id, b.index) not in self.finished]
        return self.job.model_copy(update={"batches": tuple(left)})


class WorkerPool:
    """Runs jobs in workers, as many side by side as their launcher allows.

    A worker that ends before its work is started again and goes on with the batch it was at. A
    batch that ends its worker time and again, or runs out of memory once, is given up with its
    configuration; the worker's other configurations go on. As in the paper, a configuration that
    does not fit into memory has no result, and the others are compared without it. A worker lost
    with its machine is started again whenever that happens: no batch is to blame.

    Args:
        jobs: With the batches still to be done, in the order of starting.
        manifest: Of the run; each worker's state, and what goes wrong, is added to it and written.
        launcher: Starts them.
        progress: Told of every event.
        retries: How often a batch, or the loading of a model, is tried again after a crash.
    """

    def __init__(
        self,
        jobs: list[Job],
        manifest: Manifest,
        launcher: Launcher,
        progress: ProgressListener,
        retries: int,
    ) -> None:
        self._retries = retries
        self._crashes: Counter[tuple[str, tuple[str, int] | None]] = Counter()
        self._keep_log: set[str] = set()
        self._pending = list(jobs)
        self._folder = jobs[0].folder
        self._manifest = manifest
        self._launcher = launcher
        self._progress = progress
        self._running: dict[str, _Running] = {}
        self._failures: list[WorkerFailure] = []
        # None tells that the worker's output ended.
        self._events: queue.SimpleQueue[tuple[str, Event | None]] = queue.SimpleQueue()

    def run(self) -> tuple[WorkerFailure, ...]:
        """Run every job; return the failures.

        Raises:
            RecordError: the manifest cannot be written, or a resumed worker is not as it was.
        """
        write_manifest(self._folder, self._manifest)
        try:
            self._start_what_fits()
            while self._running:
                name, event = self._events.get()
                self._handle(self._running[name], event)
        finally:
            self._end_all()
        return tuple(self._failures)

    def _start_what_fits(self) -> None:
        for job in list(self._pending):
            if self._launcher.allows((worker.job for worker in self._running.values()), job):
                self._pending.remove(job)
                self._start(job)

    def _start(self, job: Job) -> None:
        self._progress.worker_started(job.name, len(job.batches))
        deliver = functools.partial(self._deliver, job.name)
        self._running[job.name] = _Running(job, self._launcher.start(job, deliver))

    def _deliver(self, name: str, event: Event | None) -> None:
        self._events.put((name, event))

    def _handle(self, worker: _Running, event: Event | None) -> None:
        name = worker.job.name
        match event:
            case Ready(facts=facts):
                environment = numerical_environment(*worker.job.place)
                state = WorkerState(environment=environment, facts=facts)
                self._manifest = self._manifest.with_worker(name, state)
                write_manifest(self._folder, self._manifest)
                worker.worker.say("go")
            case BatchStarted(config_id=config_id, index=index):
                worker.in_hand = (config_id, index)
            case TokensGenerated(tokens=tokens):
                worker.reported_tokens += tokens
                self._progress.tokens(name, tokens)
            case BatchFinished(answers=answers, tokens=tokens, failed=failed):
                self._progress.tokens(name, tokens - worker.reported_tokens)
                worker.reported_tokens = 0
                worker.finished.add((event.config_id, event.index))
                worker.in_hand = None
                self._progress.batch_finished(name, answers)
                if failed:
                    self._progress.note(
                        f"{name}: {failed} of {answers} answers of {event.config_id} never "
                        "arrived; the cause of each is in its record."
                    )
            case Failed():
                worker.failed = event
            case None:
                self._finish(worker)

    def _finish(self, worker: _Running) -> None:
        job, end = worker.job, worker.worker.end()
        del self._running[job.name]
        if end.kind is None:
            if job.name not in self._keep_log:
                job.log_path.unlink(missing_ok=True)
            self._progress.worker_finished(job.name, None)
        else:
            self._keep_log.add(job.name)
            kind: _Kind = end.kind
            if worker.failed is not None:
                kind = "out_of_memory" if worker.failed.out_of_memory else "failed"
            self._after_failure(
                worker, kind, worker.failed.message if worker.failed else end.message
            )
        self._start_what_fits()

    def _after_failure(self, worker: _Running, kind: _Kind, message: str) -> None:
        """Try again what may do better, give up what may not, and go on with the rest."""
        job, in_hand = worker.job, worker.in_hand
        self._crashes[job.name, in_hand] += kind != "lost"
        fatal = worker.failed is not None and worker.failed.fatal
        hopeless = worker.failed is not None and worker.failed.hopeless
        again = (
            not (fatal or hopeless)
            and kind != "out_of_memory"
            and self._crashes[job.name, in_hand] <= self._retries
        )
        self._record(worker, kind, message, "retried" if again else "given up")
        if again:
            self._progress.worker_finished(job.name, f"{message}; it is started again")
            self._pending.insert(0, worker.left())
            return
        config_id = None if in_hand is None or fatal else in_hand[0]
        self._failures.append(WorkerFailure(job.name, message, job.log_path, config_id))
        self._progress.worker_finished(job.name, message)
        if fatal:
            self._pending.clear()
        elif config_id is not None:
            rest = worker.left().without(config_id)
            if rest.batches:
                self._pending.insert(0, rest)

    def _record(self, worker: _Running, kind: _Kind, message: str, outcome: _Outcome) -> None:
        config_id, index = worker.in_hand or (None, None)
        event = RunEvent(
            time=now(),
            worker=worker.job.name,
            config_id=config_id,
            batch_index=index,
            kind=kind,
            message=message,
            outcome=outcome,
        )
        self._manifest = self._manifest.with_event(event)
        # On a full disk the run ends with the worker's own message, which says more.
        with contextlib.suppress(RecordError):
            write_manifest(self._folder, self._manifest)

    def _end_all(self) -> None:
        for running in self._running.values():
            running.worker.terminate()
        for running in self._running.values():
            running.worker.join(_END_SECONDS)
        self._running.clear()
