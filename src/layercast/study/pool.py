"""The workers of a run: started as cores and memory allow, watched, and ended with the runner."""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from layercast.errors import RecordError
from layercast.study import events
from layercast.study.budget import Budget
from layercast.study.events import BatchFinished, Event, Failed, Ready, TokensGenerated
from layercast.study.instruction_sets import numerical_environment, worker_environment
from layercast.study.jobs import Job
from layercast.study.manifest import Manifest, WorkerState, write_manifest
from layercast.study.progress import ProgressListener

#: How long a worker that was asked to end may take before it is killed.
_END_SECONDS = 5.0


@dataclass(frozen=True)
class Launch:
    """How answers are made; tests of the runner put their own pieces here.

    Args:
        engine: Dotted path of an engine's module.
        task: ``module:attribute`` of a task to use instead of the plan's.
    """

    engine: str = "layercast.study.engines.transformers"
    task: str | None = None


@dataclass(frozen=True)
class WorkerFailure:
    """A worker that gave up: which, why in one line, and where its standard error is kept."""

    worker: str
    message: str
    log: Path

    def __str__(self) -> str:
        """Return one line for a person."""
        return (
            f"worker {self.worker} failed: {self.message}. Its standard error is in {self.log}; "
            "mend the cause and start the run again: finished batches are kept."
        )


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[str]
    reader: threading.Thread
    failure: str | None = None
    reported_tokens: int = 0  # of the batch in progress


class WorkerPool:
    """Runs jobs in worker processes, as many side by side as the machine's budget allows.

    Args:
        jobs: With the batches still to be done, in the order of starting.
        manifest: Of the run; each worker's state is added to it and written.
        lock: The folder's lock, which workers inherit.
        progress: Told of every event.
    """

    def __init__(
        self,
        jobs: list[Job],
        manifest: Manifest,
        lock: int,
        progress: ProgressListener,
    ) -> None:
        self._pending = list(jobs)
        self._folder = jobs[0].folder
        self._manifest = manifest
        self._lock = lock
        self._progress = progress
        self._budget = Budget.of_this_machine()
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
            if self._budget.allows((worker.job for worker in self._running.values()), job):
                self._pending.remove(job)
                self._start(job)

    def _start(self, job: Job) -> None:
        self._progress.worker_started(job.name, len(job.batches))
        try:
            job.log_path.parent.mkdir(exist_ok=True)
            with job.log_path.open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "layercast.study.worker"],
                    env=worker_environment(job.instruction_set, job.threads),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    pass_fds=(self._lock,),
                )
        except OSError as error:
            raise RecordError(
                f"study run: a worker must be startable with its log in `{job.log_path.parent}`, "
                f"got {error.strerror}. Free space or mend the permissions, then start again."
            ) from error
        reader = threading.Thread(target=self._read, args=(job.name, process), daemon=True)
        self._running[job.name] = _Running(job, process, reader)
        self._say(process, job.model_dump_json())
        reader.start()

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                event = events.decode(line)
            except ValueError:
                continue  # cut off by the worker's end, which the process's status will tell
            self._events.put((name, event))
        self._events.put((name, None))

    def _handle(self, worker: _Running, event: Event | None) -> None:
        name = worker.job.name
        match event:
            case Ready(facts=facts):
                environment = numerical_environment(worker.job.instruction_set, worker.job.threads)
                state = WorkerState(environment=environment, facts=facts)
                self._manifest = self._manifest.with_worker(name, state)
                write_manifest(self._folder, self._manifest)
                self._say(worker.process, "go")
            case TokensGenerated(tokens=tokens):
                worker.reported_tokens += tokens
                self._progress.tokens(name, tokens)
            case BatchFinished(answers=answers, tokens=tokens):
                self._progress.tokens(name, tokens - worker.reported_tokens)
                worker.reported_tokens = 0
                self._progress.batch_finished(name, answers)
            case Failed(message=message, fatal=fatal):
                worker.failure = message
                if fatal:
                    self._pending.clear()
            case None:
                self._finish(worker)

    def _finish(self, worker: _Running) -> None:
        job, status = worker.job, worker.process.wait()
        _close_pipes(worker.process)
        del self._running[job.name]
        failure = worker.failure
        if status != 0 and failure is None:
            failure = _describe_end(status, job.log_path)
        if failure is not None:
            self._failures.append(WorkerFailure(job.name, failure, job.log_path))
        else:
            job.log_path.unlink(missing_ok=True)
        self._progress.worker_finished(job.name, failure)
        self._start_what_fits()

    def _end_all(self) -> None:
        for worker in self._running.values():
            worker.process.terminate()
        for worker in self._running.values():
            try:
                worker.process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        for worker in self._running.values():
            worker.reader.join(_END_SECONDS)
            _close_pipes(worker.process)
        self._running.clear()

    @staticmethod
    def _say(process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; its status tells why
            process.stdin.write(line + "\n")
            process.stdin.flush()


def _close_pipes(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _describe_end(status: int, log: Path) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        cause = " (the system may have run out of memory)" if name == "SIGKILL" else ""
        return f"was ended by {name}{cause}"
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line for line in text.splitlines() if line.strip()]
    last = f", its last words: {lines[-1].strip()[:300]}" if lines else ""
    return f"ended with status {status}{last}"
