"""What every engine's program does: load, say so, answer a line of JSON with a line of JSON.

The requests are `generate` (times a prefill and decode steps), `answer` (tokens and
log-probabilities) and `memory`. Only the standard library: the environments have little in common.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import sys
import time
from pathlib import Path

clock = time.perf_counter


def memory():
    """Return this process's resident memory in bytes, as `layercast.bench.model_process` does."""
    status = Path("/proc/self/status").read_text()
    fields = re.findall(r"^(RssAnon|RssFile|VmRSS|VmHWM):\s+(\d+) kB", status, re.MULTILINE)
    return {name: int(kilobytes) * 1024 for name, kilobytes in fields}


def serve(load):
    """Load and answer until the input ends.

    Args:
        load: Imports what it needs, calls the function it is given right before it loads, and
            returns an engine: methods `facts()`, `generate(prompts, steps)` and
            `answer(prompts, max_new_tokens, ends)`, whose results are this program's replies.
    """
    # Libraries print to standard output, too: what they say goes to the other one.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)
    began = {}

    def loading():
        began.update(memory(), seconds=clock())

    engine = load(loading)
    seconds = clock() - began["seconds"]
    _say(replies, {"load_seconds": seconds, "facts": engine.facts()})
    for line in sys.stdin:
        request = json.loads(line)
        kind = request.pop("request")
        _say(replies, _memory(began) if kind == "memory" else getattr(engine, kind)(**request))


def logprob_bits(value):
    """Return a log-probability's bits as float32, as an integer."""
    return struct.unpack("<I", struct.pack("<f", value))[0]


def row_digest(row):
    """Return a hash of all bits of a numpy array; it fits the integers of JSON and of numpy."""
    return int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=7).digest(), "little")


def timed(began, times):
    """Return what `generate` replies.

    Args:
        began: When the request was begun.
        times: When each token was there for all sequences. The step after the prefill is left out.
    """
    decode = (times[-1] - times[1]) / (len(times) - 2)
    return {"prefill_seconds": times[0] - began, "decode_seconds": decode}


def _memory(before):
    now = memory()
    return {
        "anonymous_bytes": now["RssAnon"] - before["RssAnon"],
        "file_bytes": now["RssFile"] - before["RssFile"],
        "peak_bytes": now["VmHWM"] - before["VmRSS"],
    }


def _say(replies, reply):
    replies.write(json.dumps(reply) + "\n")
    replies.flush()
