"""What a machine can run side by side: cores and memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from layercast.study.jobs import Job

# Python with torch and transformers, activations and KV cache of a small model.
_PROCESS_BYTES = 700 * 2**20

#: Share of the free memory that workers may plan to take.
_MEMORY_SHARE = 0.8


@dataclass(frozen=True)
class Budget:
    """Cores and bytes for all workers at once.

    A worker of n threads takes n cores (all there are, if it asks for more), so that workers with
    as many threads as there are cores run alone. A worker that fits nowhere runs alone too.
    """

    cores: int
    memory_bytes: int

    @classmethod
    def of_this_machine(cls) -> Budget:
        """Return what this process may use now."""
        return cls(len(os.sched_getaffinity(0)), int(_MEMORY_SHARE * free_memory_bytes()))

    def allows(self, running: Iterable[Job], job: Job) -> bool:
        """Say whether `job` can start beside those that run."""
        others = list(running)
        cores = sum(min(other.threads, self.cores) for other in [*others, job])
        memory = sum(worker_bytes(other) for other in [*others, job])
        return not others or (cores <= self.cores and memory <= self.memory_bytes)


def worker_bytes(job: Job) -> int:
    """Return about how much memory a worker takes: its weights, in FP32 up to twice their files."""
    files = sum(path.stat().st_size for path in job.model_path.glob("*.safetensors"))
    return _PROCESS_BYTES + files * (2 if job.precision == "fp32" else 1)


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


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
