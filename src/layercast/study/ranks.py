"""The processes that hold one model together: the worker is rank 0, the others follow it.

Every rank runs the same calls in the same order; the worker alone reports and writes.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from layercast.study.jobs import Job

_PR_SET_PDEATHSIG = 1

#: What rank 0 may take to tell the runner itself what another rank failed of.
_GRACE_SECONDS = 2.0


def start_followers(job: Job) -> None:
    """Start the other ranks of a tensor-parallel job, and make this process rank 0.

    They die with this process. Where one of them dies first this process ends too, for it would
    wait for ever.

    Args:
        job: Of this worker; nothing happens where it holds its model alone, or where its engine
            starts the ranks.
    """
    size = job.configuration.tensor_parallel
    if size == 1 or not job.settings.follows_ranks:
        return
    shared = {
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    for rank in range(1, size):
        follower = subprocess.Popen(
            [sys.executable, "-m", "layercast.study.follower"],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert follower.stdin is not None
        follower.stdin.write(job.model_dump_json() + "\n")
        follower.stdin.close()
        threading.Thread(target=_end_with, args=(follower,), daemon=True).start()
    os.environ.update(shared, RANK="0", LOCAL_RANK="0")


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it dies, however it dies."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _end_with(follower: subprocess.Popen[str]) -> None:
    status = follower.wait()
    if status != 0:
        time.sleep(_GRACE_SECONDS)
        os._exit(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
