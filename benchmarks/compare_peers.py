"""Compare layercast with other engines on this CPU: speed, memory, load time, divergence.

    python benchmarks/compare_peers.py [--out FOLDER] [--only speed|divergence] [--engines NAMES]

Engines run in their own environments, which `make peers` makes; those
whose environment is missing are left out with a sentence. The record, FOLDER/<processor>.json, is
written after every case; a later run replaces what it measures anew and keeps the rest.
`peers_page.py` makes tables and chart of it.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from peers import divergence, speed
from peers.engines import chosen, start
from peers.groups import grouped
from peers.record import DIVERGENCE, SPEED, PeerRecord

from layercast.bench import checkpoint
from layercast.bench.caches import available_memory_bytes
from layercast.bench.environment import context, processor_slug
from layercast.bench.timing import Schedule
from layercast.bench.workspace import Workspace
from layercast.errors import EnvironmentSetupError
from layercast.testbed import path

PARTS = (DIVERGENCE, SPEED)
MODELS = (checkpoint.NAME, checkpoint.ONE_AND_A_HALF_NAME)
BATCHES = (1, 8, 32)
PROMPT_TOKENS = 16
PROBLEMS, MAX_NEW_TOKENS = 32, 400
#: Of a trial run.
QUICK = Schedule(warmup_rounds=0, rounds_min=1, rounds_max=1, seconds=0.0)
QUICK_STEPS, QUICK_TOKENS = 2, 24
#: Models of a group, as a share of the memory that can be had.
MEMORY_SHARE = 0.8

METHOD = {
    "order": "engines of a group in turn, every other round reversed; a pause before each turn",
    "speed": "median seconds of the engine / median seconds of layercast in the same group; low "
    "and high are quartiles of the ratio round by round",
    "memory": "what the process holds beyond what it held before loading, after the case; peak "
    "counts mapped weights, and is the most since the process began",
    "load": "once, the files in the page cache; compilation included",
    "distribution": checkpoint.DISTRIBUTION,
}


def steps_of(rows):
    """Timed decode steps of a turn."""
    return 12 if rows == 1 else 6


def schedule_of(rows):
    """Rounds of a batch: a large one takes a turn long, and its spread is small."""
    if rows == 1:
        return Schedule(warmup_rounds=1, rounds_min=5, rounds_max=7, seconds=20.0)
    return Schedule(warmup_rounds=0, rounds_min=3, rounds_max=5, seconds=20.0)


class Run:
    """One run: the engines, the record, and what was left out."""

    def __init__(self, arguments):
        self._arguments = arguments
        self.engines, missing = chosen(arguments.engines)
        for sentence in missing.values():
            say(sentence)
        circumstances = context()
        file = arguments.out / f"{processor_slug(circumstances['device'])}.json"
        more = {"method": METHOD, "trial": arguments.quick, "left_out": missing}
        self.record = PeerRecord(file, circumstances | more)

    def divergence(self):
        """Every engine's answers, and its log-probabilities against layercast's and stock's."""
        with tempfile.TemporaryDirectory(prefix="layercast-") as folder:
            self._divergence(shutil.copytree(path(), Path(folder) / "bundled"))

    def _divergence(self, folder):
        arguments, references = self._arguments, {}
        prompts, ends = divergence.prompts_of(arguments.problems)
        # Stock FP32 first: what the others are compared with.
        order = sorted(self.engines, key=lambda engine: engine.name != "stock_fp32")
        for engine in order:
            try:
                found, facts = divergence.answers(
                    engine,
                    folder,
                    prompts,
                    ends,
                    batches=arguments.batches,
                    threads=arguments.threads_compared,
                    max_new_tokens=QUICK_TOKENS if arguments.quick else MAX_NEW_TOKENS,
                    on_stage=say,
                )
                entry = divergence.entry(engine, found, facts, references)
            except (EnvironmentSetupError, ValueError) as error:
                say(f"{engine.label} is left out of divergence: {error}")
                continue
            if engine.name in ("stock_fp32", "layercast"):
                references[engine.name] = next(iter(found.values()))
            self.record.add(entry)
            say(f"{engine.label}: {entry['engines'][engine.name]['div_percent']:.1f} % diverge")

    def speed(self, workspace):
        """Every model, in groups of engines that fit into memory."""
        for model in self._arguments.models:
            folder = workspace.checkpoint(model)
            parameters = sum(f.stat().st_size for f in folder.glob("*.safetensors")) // 2
            limit = int(MEMORY_SHARE * available_memory_bytes())
            for engines in grouped(self.engines, parameters, limit):
                try:
                    self._group(engines, model, folder)
                except EnvironmentSetupError as error:
                    say(f"This group of {model} is left out: {error}")
            workspace.forget(model)

    def _group(self, engines, model, folder):
        say(f"{model}: loading {', '.join(engine.label for engine in engines)}")
        arguments = self._arguments
        threads, shape = torch.get_num_threads(), checkpoint.MODELS[model]
        prepare_files(engines, folder)
        with speed.Group(engines, folder, shape, threads, max(arguments.batches)) as group:
            for rows in arguments.batches:
                case = speed.SpeedCase(
                    model=model,
                    rows=rows,
                    prompt=arguments.prompt,
                    steps=QUICK_STEPS if arguments.quick else steps_of(rows),
                    schedule=QUICK if arguments.quick else schedule_of(rows),
                )
                began = time.monotonic()
                entry = group.measure(case)
                self.record.add(entry)
                say(f"{case.label}: {summary(entry)}, in {time.monotonic() - began:.0f} s")
            for name, reason in group.left_out.items():
                say(f"{name} is left out of {model}: {reason}")


def prepare_files(engines, folder):
    """Make what engines load, and read it, so that neither counts as loading."""
    for engine in engines:
        if engine.program == "peers.llama_cpp_process":
            worker = start(engine, folder, 1, 1)
            try:
                _ = worker.loaded
            except EnvironmentSetupError:
                pass  # said when it is to be measured
            finally:
                worker.close()
    speed.read_into_memory(folder)


def summary(entry):
    """Return each engine's time of a decode step, in a line."""
    return ", ".join(
        f"{name} {1e3 * found['seconds']['decode']['median']:.0f} ms"
        for name, found in entry["engines"].items()
    )


def say(text):
    """Print at once."""
    print(text, flush=True)


def numbers(text):
    """Return the numbers of "1,8"."""
    return [int(part) for part in text.split(",")]


def parse(words):
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = Path(__file__).with_name("results") / "peers"
    parser.add_argument("--out", type=Path, default=folder, help="folder of records")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; all if left out")
    parser.add_argument("--engines", type=lambda text: text.split(","), default=(), help="names")
    parser.add_argument("--models", type=lambda text: text.split(","), default=MODELS)
    parser.add_argument("--batches", type=numbers, default=BATCHES, help="e.g. 1,8")
    parser.add_argument("--prompt", type=int, default=PROMPT_TOKENS, help="tokens, for speed")
    parser.add_argument("--problems", type=int, default=PROBLEMS, help="for divergence")
    parser.add_argument("--threads-compared", type=numbers, default=(1, 2), help="for divergence")
    parser.add_argument("--quick", action="store_true", help="a trial of one round, no measurement")
    return parser.parse_args(words)


def main(words):
    """Run the parts that were asked for."""
    arguments = parse(words)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    run = Run(arguments)
    parts = arguments.only or PARTS
    if DIVERGENCE in parts:
        run.divergence()
    if SPEED in parts:
        with Workspace() as workspace:
            run.speed(workspace)
    say(f"Records: {run.record.path}")


if __name__ == "__main__":
    main(sys.argv[1:])
