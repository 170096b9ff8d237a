"""What the pool asks of whatever starts workers for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from layercast.study.events import Event
from layercast.study.jobs import Job


@dataclass(frozen=True)
class End:
    """How a worker ended that did not say so itself.

    `kind` is None if it ended with its work done. A ``lost`` worker went down with its machine:
    what it was at has nothing to do with it.
    """

    kind: Literal["out_of_memory", "crashed", "lost"] | None = None
    message: str = ""


class RunningWorker(Protocol):
    """A worker that was started."""

    def say(self, line: str) -> None:
        """Write a line to its standard input; one that has ended does not mind."""

    def end(self) -> End:
        """Return how it ended; called after the last event."""

    def terminate(self) -> None:
        """Ask it to end."""

    def join(self, seconds: float) -> None:
        """Wait for its end, at most so long, then make it end; nothing of it goes on."""


class Launcher(Protocol):
    """Starts workers; see `layercast.study.worker` for what one is."""

    def allows(self, running: Iterable[Job], job: Job) -> bool:
        """Say whether a job can be started beside those that run."""

    def start(self, job: Job, deliver: Callable[[Event | None], None]) -> RunningWorker:
        """Start the worker of a job.

        Args:
            job: It is given to the worker.
            deliver: Called, from a thread of the launcher's, with each event, a finished batch's
                once its file is in the run folder; then once with None.

        Raises:
            RecordError: its log cannot be written.
            EnvironmentSetupError: nothing here can ever run it.
        """

    def close(self) -> None:
        """Let go of what was opened for the workers, which have all ended."""
