"""What a machine can run side by side: cores and memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from layercast.study.jobs import Job

# Python with torch and transformers, activations and KV cache of a small model.
_PROCESS_BYTES = 700 * 2**20

#: What a worker with vLLM keeps for keys and values: left to itself it takes most of the machine,
#: which other workers share.
VLLM_CACHE_BYTES = 2**30

#: Share of the free memory that workers may plan to take.
_MEMORY_SHARE = 0.8


@dataclass(frozen=True)
class Budget:
    """Cores and bytes for all workers at once.

    A worker of one thread keeps a core busy. One of several threads does not keep as many: between
    its parallel regions a single thread drives the model (two threads on two cores were measured
    at one core's time in all), and its waiting threads give up their cores. It counts as half its
    threads, so that two such workers fill the cores that one leaves idle. How many threads a
    worker has, which its bits may depend on, is not changed by its neighbours. A worker that fits
    nowhere runs alone.
    """

    cores: int
    memory_bytes: int

    @classmethod
    def of_this_machine(cls) -> Budget:
        """Return what this process may use now."""
        return cls(len(os.sched_getaffinity(0)), int(_MEMORY_SHARE * free_memory_bytes()))

    def allows(self, running: Iterable[Job], job: Job) -> bool:
        """Say whether `job` can start beside those that run.

        Requests to an endpoint come from one worker at a time: how many are under way at once is
        what is measured.
        """
        others = list(running)
        if others and (job.remote or any(other.remote for other in others)):
            return False
        cores = sum(self._cores_of(other) for other in [*others, job])
        memory = sum(worker_bytes(other) for other in [*others, job])
        return not others or (cores <= self.cores and memory <= self.memory_bytes)

    def _cores_of(self, job: Job) -> int:
        of_one_process = (min(job.configuration.threads, self.cores) + 1) // 2
        return of_one_process * job.configuration.tensor_parallel


def worker_bytes(job: Job) -> int:
    """Return about how much memory a worker takes: its weights, in FP32 up to twice their files."""
    if job.remote or job.model_path is None:
        return _PROCESS_BYTES
    files = sum(path.stat().st_size for path in job.model_path.glob("*.safetensors"))
    weights = files * (2 if job.precision == "fp32" else 1)
    cache = VLLM_CACHE_BYTES if job.settings.kind == "vllm" else 0
    return (_PROCESS_BYTES + cache) * job.configuration.tensor_parallel + weights


def free_memory_bytes() -> int:
    """Return the memory that is free for new processes, a container's limit included."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    limit = _lines(Path("/sys/fs/cgroup/memory.max"))
    used = _lines(Path("/sys/fs/cgroup/memory.current"))
    if limit and used and limit[0].isdigit():
        free = min(free, int(limit[0]) - int(used[0]))
    return max(free, 0)


def oom_kills() -> int:
    """Return how many processes the kernel has killed for want of memory, here or in the container.

    A counter that grew while a worker ran tells why that one was killed.
    """
    found = [
        int(line.split()[1])
        for path in (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events"))
        for line in _lines(path)
        if line.startswith("oom_kill ")
    ]
    return sum(found)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
