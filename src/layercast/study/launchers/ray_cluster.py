"""Workers over a Ray cluster: each on a node with the cores and memory it asks for."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from layercast.errors import EnvironmentSetupError, LayercastError, RecordError
from layercast.study import events
from layercast.study.atomic import write_atomically
from layercast.study.budget import worker_bytes
from layercast.study.events import BatchFinished, Event, Failed
from layercast.study.jobs import Job
from layercast.study.launchers.interface import End
from layercast.study.launchers.node_worker import FILES, Ended, NodeWorker, Said, identity

#: How long one question to a worker waits for an answer; what it says comes no later than that.
_POLL_SECONDS = 0.5

#: How long a cluster that is there may take to answer.
_REACH_SECONDS = 10.0

#: How long the cluster may take to notice that a node is gone.
_NOTICE_SECONDS = 30.0


class RayLauncher:
    """Starts each worker on a node of a Ray cluster that has room for it.

    Ray queues what does not fit yet. The runner's folder is written by the runner alone.

    Args:
        address: Of the cluster, as `ray.init` takes it; None: `RAY_ADDRESS`, or the one that runs
            on this machine.

    Raises:
        EnvironmentSetupError: no cluster can be reached.
    """

    def __init__(self, address: str | None = None) -> None:
        self._connected_here = not ray.is_initialized()
        if not self._connected_here:
            return
        asked = address or os.environ.get("RAY_ADDRESS")
        try:
            _reach(asked)
            ray.init(address=address or "auto", log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            raise EnvironmentSetupError(
                f"study run: a Ray cluster must be running {f'at {asked}' if asked else 'here'}, "
                f"got: {_one_line(error)}. Start one (ray start --head), or name it with "
                "--ray-address."
            ) from error

    def allows(self, running: Iterable[Job], job: Job) -> bool:
        """Say yes: Ray keeps what does not fit."""
        return True

    def start(self, job: Job, deliver: Callable[[Event | None], None]) -> RayWorker:
        """Start the worker on a node; see `Launcher`."""
        resources = resources_of(job)
        _require_room(job, resources)
        try:
            job.log_path.parent.mkdir(exist_ok=True)
            files = {name: (job.folder / name).read_bytes() for name in FILES}
        except OSError as error:
            raise RecordError(
                f"study run: `{job.folder}` must be readable and hold its logs, got "
                f"{error.strerror}. Mend the permissions, then start again."
            ) from error
        actor: Any = (
            ray.remote(NodeWorker)
            .options(**resources, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD")
            .remote()
        )
        return RayWorker(job, actor, files, deliver)

    def close(self) -> None:
        """Leave the cluster."""
        if self._connected_here:
            ray.shutdown()


def resources_of(job: Job) -> dict[str, float]:
    """What a worker takes of a node: a core a thread and rank, and memory as on one machine."""
    configuration = job.configuration
    cores = configuration.threads * configuration.tensor_parallel
    return {"num_cpus": cores, "memory": worker_bytes(job)}


def _require_room(job: Job, resources: dict[str, float]) -> None:
    """Refuse what no node of the cluster could ever hold: Ray would wait for one for ever.

    Raises:
        EnvironmentSetupError: no living node is large enough.
    """
    deadline = time.monotonic() + _NOTICE_SECONDS
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any(
            node.get("CPU", 0) >= resources["num_cpus"]
            and node.get("memory", 0) >= resources["memory"]
            for node in nodes
        ):
            return
        if nodes or time.monotonic() > deadline:
            break
        time.sleep(_POLL_SECONDS)
    largest = max((node.get("CPU", 0) for node in nodes), default=0)
    raise EnvironmentSetupError(
        f"study run: a node of the cluster must have {resources['num_cpus']:g} cores and "
        f"{resources['memory'] / 2**30:.1f} GiB for worker {job.name}, got at most {largest:g} "
        "cores a node, or less memory. Add such a node (ray start --address=...), then start the "
        "run again: finished batches are kept."
    )


class RayWorker:
    """A worker on a node, and the thread that asks it what it has to say."""

    def __init__(
        self,
        job: Job,
        actor: Any,
        files: dict[str, bytes],
        deliver: Callable[[Event | None], None],
    ) -> None:
        self._job = job
        self._actor = actor
        self._files = files
        self._deliver = deliver
        self._end = End("crashed", "ended without a word")
        self._stopped = threading.Event()
        self._alive_before = _alive_nodes()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        self._actor.say.remote(line)

    def end(self) -> End:
        """Return how it ended."""
        return self._end

    def terminate(self) -> None:
        """Have its thread stop asking, and end it."""
        self._stopped.set()

    def join(self, seconds: float) -> None:
        """Wait until it has ended; Ray ends what does not answer."""
        self._thread.join(seconds)
        with contextlib.suppress(RayError, ValueError):
            ray.kill(self._actor)

    def _follow(self) -> None:
        try:
            self._end = self._listen()
        except LayercastError as error:
            self._give_up(error)
        except RayActorError as error:
            self._end = self._explain(error)
        except RayError as error:
            self._end = End("crashed", _one_line(error))
        finally:
            with contextlib.suppress(RayError, ValueError):
                ray.get(self._actor.stop.remote(), timeout=_POLL_SECONDS * 10)
            with contextlib.suppress(RayError, ValueError):
                ray.kill(self._actor)
            self._deliver(None)

    def _listen(self) -> End:
        """Take what the worker says until it ends."""
        expected = identity(self._job.model_path)
        begun = self._actor.begin.remote(self._job.model_dump_json(), self._files, expected)
        ray.get(begun)
        batches = {(b.config_id, b.index): b for b in self._job.batches}
        while not self._stopped.is_set():
            for said in ray.get(self._actor.poll.remote(_POLL_SECONDS)):
                if isinstance(said, Ended):
                    return self._ended(said)
                event = events.decode(said.line)
                if isinstance(event, BatchFinished):
                    _write_batch(self._job.batch_path(batches[event.config_id, event.index]), said)
                self._deliver(event)
        return End("crashed", "was ended by the runner")

    def _ended(self, said: Ended) -> End:
        if said.message is None:
            return End()
        with contextlib.suppress(OSError), self._job.log_path.open("ab") as log:
            log.write(said.log)
        return End("out_of_memory" if said.out_of_memory else "crashed", said.message)

    def _give_up(self, error: LayercastError) -> None:
        """Tell of a refusal as a worker does: another try would meet the same."""
        cause = getattr(error, "cause", None) or error  # Ray wraps what a node raised
        message = " ".join(str(cause).split())
        self._deliver(Failed(message=message, fatal=True, hopeless=True, out_of_memory=False))
        self._end = End("crashed", message)

    def _explain(self, error: RayActorError) -> End:
        """Tell a node that went down from a worker that did.

        One that cannot be reached may be down without the cluster having noticed; and if it is
        not, an answer of its worker may have gone astray, which is the same to the run.
        """
        text = str(error)
        if "OUT_OF_MEMORY" in text or "OutOfMemory" in text:
            return End("out_of_memory", "was ended by Ray (the node ran out of memory)")
        unreachable = isinstance(error, ActorUnavailableError)
        deadline = time.monotonic() + _NOTICE_SECONDS * unreachable
        while True:
            gone = self._alive_before - _alive_nodes()
            if gone:
                return End("lost", f"was lost with its node {min(gone)[:8]}")
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        if unreachable:
            return End("lost", "was lost: its node could not be reached")
        return End("crashed", f"its process on the node ended: {_one_line(error)}")


def _write_batch(path: Path, said: Said) -> None:
    """Write the batch that a worker handed over into the run folder."""
    content = said.batch
    assert content is not None
    write_atomically(path, lambda file: file.write(content))


def _reach(address: str | None) -> None:
    """Find out in seconds what `ray.init` finds out in minutes.

    Raises:
        OSError: nothing listens at a `host:port`.
    """
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_SECONDS).close()


def _alive_nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
