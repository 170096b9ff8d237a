"""Times calls on a CUDA device in turns, and keeps a record that is rewritten case by case."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import torch
import transformers
import triton

from layercast.version import __version__

ROUNDS = 7


class Record:
    """What was measured on one device, written after every case: one cut off keeps what it had."""

    def __init__(self, folder):
        """Begin a record, which goes to FOLDER/<device>.json."""
        device = torch.cuda.get_device_name()
        self._begin = self._end = time.monotonic()
        self._path = Path(folder) / f"{device.replace(' ', '-').lower()}.json"
        self._content = {
            "device": device,
            "layercast": __version__,
            "torch": torch.__version__,
            "triton": triton.__version__,
            "transformers": transformers.__version__,
            "cuda": torch.version.cuda,
            "unit": "microseconds, median of rounds; x_NAME: NAME's time / layercast's",
            "cases": [],
            "left_out": [],
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def until(self, seconds):
        """Let no case begin later than so many seconds from the record's beginning."""
        self._end = self._begin + seconds

    def take(self, case, measure):
        """Measure a case if there is time.

        Args:
            case: What it is, by name.
            measure: Returns contender to microseconds, `layercast` among them.
        """
        shown = " ".join(f"{key}={value}" for key, value in case.items())
        if time.monotonic() > self._end:
            self._leave_out(case, "no time was left")
        else:
            try:
                medians = measure()
            except torch.cuda.OutOfMemoryError:
                self._leave_out(case, "no memory was left")
            else:
                ratios = {f"x_{k}": v / medians["layercast"] for k, v in medians.items()}
                ratios.pop("x_layercast")
                self._content["cases"].append({**case, "microseconds": medians, **ratios})
                rounded = {key: round(value, 2) for key, value in ratios.items()}
                print(f"{shown}: {medians['layercast']:.1f} us {rounded}", flush=True)
        torch.cuda.empty_cache()
        self._path.write_text(json.dumps(self._content, indent=1) + "\n")

    def _leave_out(self, case, reason):
        self._content["left_out"].append({**case, "reason": reason})
        print(f"{case}: left out, {reason}", flush=True)


def microseconds(call, repeats):
    """Of one call, over `repeats` calls in a row; the device's own clock."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return 1000 * begin.elapsed_time(end) / repeats


def captured(call, copies=1):
    """`call(i)` for every copy i as one graph: launches from Python would be timed otherwise."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for i in range(copies):
            call(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(copies):
            call(i)
    return graph


def medians_in_turns(calls, repeats=3, rounds=ROUNDS):
    """Name to the median of its calls' times, all names taking turns."""
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(microseconds(call, repeats))
    return {name: statistics.median(values) for name, values in times.items()}
