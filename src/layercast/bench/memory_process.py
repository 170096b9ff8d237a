"""Load a model, decode a little, report time and memory: one process of the `memory` case.

`python -m layercast.bench.memory_process FOLDER VARIANT TOKENS THREADS` prints a line of JSON.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Measure one variant.

    Args:
        arguments: FOLDER VARIANT TOKENS THREADS.
    """
    import torch
    from transformers.utils import logging

    from layercast.bench.case import Variant
    from layercast.bench.checkpoint import load_variant
    from layercast.bench.generation import Stopwatch, generate

    folder, variant, tokens, threads = arguments
    torch.set_num_threads(int(threads))
    logging.disable_progress_bar()
    before = memory()
    with torch.inference_mode():
        began = time.perf_counter()
        model = load_variant(Path(folder), Variant(variant))
        load_seconds = time.perf_counter() - began
        loaded = memory()
        generate(model, torch.ones(1, 1, dtype=torch.int64), int(tokens), Stopwatch(time.monotonic))
    decoded = memory()
    report = {
        "load_seconds": load_seconds,
        "loaded_anonymous_bytes": loaded["RssAnon"] - before["RssAnon"],
        "decoded_anonymous_bytes": decoded["RssAnon"] - before["RssAnon"],
        "decoded_file_bytes": decoded["RssFile"] - before["RssFile"],
        "peak_bytes": decoded["VmHWM"] - before["VmRSS"],
    }
    print(json.dumps(report))


def memory() -> dict[str, int]:
    """Return this process's resident memory in bytes, as Linux counts it.

    RssAnon is its own, RssFile that of mapped files (shared, and given back under pressure), VmRSS
    all of it, VmHWM the most there has been.
    """
    status = Path("/proc/self/status").read_text()
    fields = re.findall(r"^(RssAnon|RssFile|VmRSS|VmHWM):\s+(\d+) kB", status, re.MULTILINE)
    return {name: int(kilobytes) * 1024 for name, kilobytes in fields}


if __name__ == "__main__":
    main(sys.argv[1:])
