"""Workers as processes of this machine, as many side by side as its cores and memory allow."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Literal

from layercast.errors import RecordError
from layercast.study import events
from layercast.study.budget import Budget, oom_kills
from layercast.study.events import Event
from layercast.study.instruction_sets import worker_environment
from layercast.study.jobs import Job
from layercast.study.launchers.interface import End

COMMAND = (sys.executable, "-m", "layercast.study.worker")


class ProcessLauncher:
    """Starts each worker as a process of this one, which writes into the run folder itself.

    Args:
        lock: The folder's lock, which workers inherit.
    """

    def __init__(self, lock: int) -> None:
        self._lock = lock
        self._budget = Budget.of_this_machine()

    def allows(self, running: Iterable[Job], job: Job) -> bool:
        """Say whether cores and memory are left for it."""
        return self._budget.allows(running, job)

    def start(self, job: Job, deliver: Callable[[Event | None], None]) -> WorkerProcess:
        """Start the process; see `Launcher`."""
        try:
            job.log_path.parent.mkdir(exist_ok=True)
            with job.log_path.open("ab") as log:
                process = subprocess.Popen(
                    COMMAND,
                    env=worker_environment(*job.place),
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
        return WorkerProcess(job, process, deliver)

    def close(self) -> None:
        """Do nothing."""


class WorkerProcess:
    """A process, and the thread that reads what it says."""

    def __init__(
        self, job: Job, process: subprocess.Popen[str], deliver: Callable[[Event | None], None]
    ) -> None:
        self._job = job
        self._process = process
        self._deliver = deliver
        self._oom_kills_before = oom_kills()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self.say(job.model_dump_json())
        self._reader.start()

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; its status tells why
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def end(self) -> End:
        """Return how it ended, by its exit status."""
        status = self._process.wait()
        self._close_pipes()
        if status == 0:
            return End()
        return End(self._kind(status), self._describe(status))

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self._process.terminate()

    def join(self, seconds: float) -> None:
        """Wait for it, and kill it if that does not help."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(seconds)
        self._close_pipes()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                event = events.decode(line)
            except ValueError:
                continue  # cut off by the worker's end, which the process's status will tell
            self._deliver(event)
        self._deliver(None)

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _kind(self, status: int) -> Literal["out_of_memory", "crashed"]:
        killed = status == -signal.SIGKILL
        return "out_of_memory" if killed and self._memory_ran_out() else "crashed"

    def _memory_ran_out(self) -> bool:
        return oom_kills() > self._oom_kills_before

    def _describe(self, status: int) -> str:
        log = self._job.log_path
        text = log.read_text(errors="replace") if log.exists() else ""
        return describe_status(status, text, memory_ran_out=self._memory_ran_out())


def describe_status(status: int, log: str, *, memory_ran_out: bool) -> str:
    """Say in one line how a worker's process ended.

    Args:
        status: As `subprocess` has it: negative for a signal.
        log: Its standard error.
        memory_ran_out: Whether the kernel killed a process for want of memory meanwhile.
    """
    if status < 0:
        name = signal.Signals(-status).name
        if name != "SIGKILL":
            return f"was ended by {name}"
        may_have = "ran" if memory_ran_out else "may have run"
        return f"was ended by {name} (the system {may_have} out of memory)"
    lines = [line for line in log.splitlines() if line.strip()]
    last = f", its last words: {lines[-1].strip()[:300]}" if lines else ""
    return f"ended with status {status}{last}"
