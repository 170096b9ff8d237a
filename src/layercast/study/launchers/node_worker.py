"""A study's worker on a node of a cluster, which has neither the run folder nor its runner.

What the worker needs of the folder is brought there, and what it writes is handed over with the
event that tells of it.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layercast.errors import EnvironmentSetupError
from layercast.numerics import NUMERICS_VERSION
from layercast.study import events, provenance
from layercast.study.budget import oom_kills
from layercast.study.events import BatchFinished
from layercast.study.instruction_sets import worker_environment
from layercast.study.jobs import Job
from layercast.study.launchers.processes import COMMAND, describe_status
from layercast.study.manifest import first_differences
from layercast.study.model_files import digest_files, locate
from layercast.study.records import PROBLEMS_FILE

#: Files of a run folder that a worker reads. Not the vocabulary: only an endpoint names tokens that
#: it lacks, and endpoints are not asked from a cluster.
FILES = (PROBLEMS_FILE,)

_DEVICE = ("cpu_model", "architecture", "cpu_flags")


@dataclass(frozen=True)
class Said:
    """An event of the worker, as the line it wrote, and the batch it wrote to a file before."""

    line: str
    batch: bytes | None = None


@dataclass(frozen=True)
class Ended:
    """The worker's exit status in words, None if it is 0; and its standard error."""

    message: str | None
    out_of_memory: bool
    log: bytes


@functools.cache
def identity(model_path: Path | None) -> dict[str, Any]:
    """What must be the same on every machine of a run for its answers to belong together.

    Args:
        model_path: The model's files on this machine; None if a server has them.
    """
    device = provenance.device()
    return {
        "numerics_version": NUMERICS_VERSION,
        "versions": provenance.versions(),
        "device": {name: device[name] for name in _DEVICE},
        "model files": {}
        if model_path is None
        else {name: file.sha256 for name, file in digest_files(model_path).items()},
    }


class NodeWorker:
    """Starts and watches one worker; its methods are called from the runner's machine."""

    def __init__(self) -> None:
        self._said: queue.SimpleQueue[Said | Ended] = queue.SimpleQueue()
        self._folder = tempfile.TemporaryDirectory(prefix="layercast-study-")
        self._process: subprocess.Popen[str] | None = None

    def begin(self, job_json: str, files: dict[str, bytes], expected: dict[str, Any]) -> None:
        """Start the worker.

        Args:
            job_json: The job; its folder and model path are the runner's and are replaced.
            files: Content of `FILES`, by name.
            expected: `identity` of the runner's machine.

        Raises:
            EnvironmentSetupError: this machine is another kind than the runner's, or has another
                layercast or model.
        """
        job = Job.model_validate_json(job_json)
        folder = Path(self._folder.name)
        model_path = None if job.model_path is None else _locate(job)
        _require_same(expected, identity(model_path))
        for name, content in files.items():
            (folder / name).write_bytes(content)
        job = job.model_copy(update={"folder": folder, "model_path": model_path})
        self._job = job
        self._oom_kills_before = oom_kills()
        job.log_path.parent.mkdir()
        with job.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                COMMAND,
                env=worker_environment(*job.place),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.say(job.model_dump_json())
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def poll(self, seconds: float) -> list[Said | Ended]:
        """Return what the worker said since, after waiting for it at most so long."""
        found: list[Said | Ended] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._said.get(timeout=seconds))
            while True:
                found.append(self._said.get_nowait())
        return found

    def say(self, line: str) -> None:
        """Write a line to the worker's standard input."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()

    def stop(self) -> None:
        """End the worker and remove what it wrote."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def _read(self, process: subprocess.Popen[str]) -> None:
        try:
            self._take(process)
        except OSError as error:  # else the runner would wait for a word for ever
            process.kill()
            process.wait()
            lost = f"its files on the node could not be read ({error.strerror}: {error.filename})"
            self._said.put(Ended(lost, False, b""))

    def _take(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        batches = {(b.config_id, b.index): b for b in self._job.batches}
        for line in process.stdout:
            try:
                event = events.decode(line)
            except ValueError:
                continue  # cut off by the worker's end
            said = Said(line)
            if isinstance(event, BatchFinished):
                path = self._job.batch_path(batches[event.config_id, event.index])
                said = Said(line, path.read_bytes())
                path.unlink()
            self._said.put(said)
        status = process.wait()
        log = self._job.log_path.read_bytes()
        ran_out = oom_kills() > self._oom_kills_before
        message = None
        if status != 0:
            message = describe_status(status, log.decode(errors="replace"), memory_ran_out=ran_out)
        self._said.put(Ended(message, ran_out and status == -9, log))


def _locate(job: Job) -> Path:
    """The model's files here: by the plan's name, or where they lie on the runner's machine."""
    local = Path(job.model).expanduser().is_dir() or job.model.startswith(("/", ".", "~"))
    return locate(str(job.model_path) if local else job.model)


def _require_same(expected: dict[str, Any], found: dict[str, Any]) -> None:
    different = first_differences(expected, found)
    if different:
        raise EnvironmentSetupError(
            "study run: every node must be of the runner's kind, with the same packages and model "
            f"files, for answers of a run to be comparable; on one of them {different}. Make "
            "them alike, or run each kind into its own folder and report them together."
        )
