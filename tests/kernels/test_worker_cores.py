"""Contract under test: threads that help a kernel run on other cores than its caller's, and the
caller's own cores stay what they were."""

import json
import os
import subprocess
import sys

import pytest

# Prints the cores of the caller and of the thread its kernels have started: after a call with all
# cores allowed, and after one with the caller bound to a core of that thread.
PROGRAM = """
import json, os
import torch
torch.set_num_threads(2)
from layercast import ops

def threads():
    return {int(name) for name in os.listdir("/proc/self/task")}

def call():
    ops.linear(x, weight)
    (helper,) = threads() - before
    seen = [sorted(os.sched_getaffinity(thread)) for thread in (0, helper)]
    print(json.dumps(seen))
    return seen[1]

x, weight = torch.ones(64, 512), torch.ones(512, 512)
before = threads()
cores = call()
os.sched_setaffinity(0, cores[:1])
call()
"""

CORES = sorted(os.sched_getaffinity(0))


@pytest.mark.skipif(len(CORES) < 2, reason="one core: there is no other")
def test_helpers_are_kept_off_the_callers_core_and_the_caller_keeps_its_own():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    (caller, helper), (bound_caller, freed_helper) = map(json.loads, done.stdout.splitlines())
    assert caller == CORES
    assert set(helper) < set(CORES)
    assert len(helper) == len(CORES) - 1
    # A caller bound to one core, where its helper was: the helper may run anywhere again.
    assert bound_caller == helper[:1]
    assert freed_helper == CORES
