"""Prefill, decode, load time and memory of engines whose models lie in memory together."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field

import torch

from layercast.bench.disturbance import LoadMeter
from layercast.bench.inputs import generator
from layercast.bench.records import times_of
from layercast.bench.timing import Schedule, Times, interleave, speed
from layercast.errors import EnvironmentSetupError
from peers.engines import OURS, start
from peers.record import SPEED

#: Longer than threads of any OpenMP spin after a parallel region (LLVM's: 0.2 s).
PAUSE_SECONDS = 0.25
#: Lengths of the untimed request after loading.
WARM_PROMPT, WARM_STEPS = 8, 2
#: An engine whose prefill would take longer takes no part in a case.
TURN_LIMIT_SECONDS = 40.0

END_TO_END, PREFILL, DECODE = "end_to_end", "prefill", "decode"


@dataclass(frozen=True, kw_only=True)
class SpeedCase:
    """A batch to measure.

    Attributes:
        model: A name of `layercast.bench.checkpoint.MODELS`.
        rows: Sequences decoded at once.
        prompt: Tokens of each.
        steps: Timed decode steps.
        schedule: Rounds.
    """

    model: str
    rows: int
    prompt: int
    steps: int
    schedule: Schedule

    @property
    def label(self):
        """What a person calls it."""
        return f"{self.model}, batch {self.rows}"


@dataclass
class GenerateTurn:
    """Has an engine's process take a turn; a sample is the whole answer's time.

    Attributes:
        worker: The process.
        prompts: Token ids.
        steps: Timed decode steps.
        replies: What it said, a reply a turn.
    """

    worker: object
    prompts: list
    steps: int
    replies: list = field(default_factory=list)

    def __call__(self):
        """Take the turn."""
        time.sleep(PAUSE_SECONDS)
        reply = self.worker.ask("generate", prompts=self.prompts, steps=self.steps)
        self.replies.append(reply)
        return reply["prefill_seconds"] + self.steps * reply["decode_seconds"]


class Group:
    """Processes of the engines of one group, on one checkpoint; a context manager that ends them.

    Attributes:
        left_out: Why an engine is no longer among them, by name.
    """

    def __init__(self, engines, folder, parameters_of_model, threads, sequences):
        self._engines = engines
        self._folder = folder
        self._vocabulary = parameters_of_model["vocab_size"]
        self._threads = threads
        self._sequences = sequences
        self._workers = {}
        self.left_out = {}
        self._measured = None

    def __enter__(self):
        """Load one after the other, so that load times are each engine's own."""
        try:
            for engine in self._engines:
                worker = start(engine, self._folder, self._threads, self._sequences)
                self._workers[engine.name] = worker
                self._try(engine.name, lambda worker=worker: self._warm(worker))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised):
        """End the processes, whatever they do."""
        for worker in self._workers.values():
            worker.stop()

    def measure(self, case):
        """Measure a case with the engines that are left; return its entry of the record."""
        prompts = random_prompts(self._vocabulary, case.rows, case.prompt)
        slow = self._too_slow(case)
        while True:
            turns = {
                name: GenerateTurn(worker, prompts, case.steps)
                for name, worker in self._workers.items()
                if name not in slow
            }
            ended = []

            def guarded(name, turn, ended=ended):
                def take():
                    try:
                        return turn()
                    except EnvironmentSetupError:
                        ended.append(name)
                        raise

                return take

            try:
                rounds = interleave(
                    {name: guarded(name, turn) for name, turn in turns.items()},
                    case.schedule,
                    disturbed=LoadMeter().disturbed,
                )
            except EnvironmentSetupError as error:
                self._drop(ended[0], error)
                continue
            entry = self._entry(case, turns, rounds)
            entry["left_out"] = self.left_out | slow
            self._measured = entry
            return entry

    def _too_slow(self, case):
        """Return the reason for each engine that took too long a token in the case before."""
        if self._measured is None:
            return {}
        before = self._measured["rows"] * self._measured["prompt_tokens"]
        share = case.rows * case.prompt / before
        expected = {
            name: share * found["seconds"][PREFILL]["median"]
            for name, found in self._measured["engines"].items()
            if name != OURS
        }
        # One that was too slow for fewer rows is so for more.
        kept = {n: r for n, r in self._measured["left_out"].items() if n in self._workers}
        return kept | {
            name: f"at batch {case.rows} its prefill would take {seconds:.0f} s"
            for name, seconds in expected.items()
            if seconds > TURN_LIMIT_SECONDS
        }

    def _warm(self, worker):
        prompts = random_prompts(self._vocabulary, 1, WARM_PROMPT)
        worker.ask("generate", prompts=prompts, steps=WARM_STEPS)

    def _try(self, name, call):
        try:
            call()
        except EnvironmentSetupError as error:
            self._drop(name, error)

    def _drop(self, name, error):
        if name == OURS:
            raise error
        self._workers.pop(name).stop()
        self.left_out[name] = str(error)

    def _entry(self, case, turns, rounds):
        kept = [case.schedule.warmup_rounds + index for index in rounds.kept]
        times = {
            name: {
                END_TO_END: rounds.times[name],
                PREFILL: Times(tuple(turn.replies[i]["prefill_seconds"] for i in kept)),
                DECODE: Times(tuple(turn.replies[i]["decode_seconds"] for i in kept)),
            }
            for name, turn in turns.items()
        }
        return {
            "part": SPEED,
            "model": case.model,
            "rows": case.rows,
            "prompt_tokens": case.prompt,
            "steps": case.steps,
            "threads": self._threads,
            "rounds_dropped": rounds.dropped,
            "quiet": rounds.quiet,
            "engines": {
                name: {
                    "load_seconds": worker.loaded["load_seconds"],
                    "memory_bytes": worker.ask("memory"),
                    "seconds": {kind: times_of(found) for kind, found in times[name].items()},
                    "speed": {
                        kind: asdict(speed(times[OURS][kind], found))
                        for kind, found in times[name].items()
                    },
                    "facts": worker.loaded["facts"],
                }
                for name, worker in self._workers.items()
                if name in turns
            },
        }


def random_prompts(vocabulary, rows, tokens):
    """Return the same token ids each time: `rows` lists of `tokens`."""
    return torch.randint(0, vocabulary, (rows, tokens), generator=generator()).tolist()


def read_into_memory(folder):
    """Read a checkpoint's files, so that load times are none of the disk's."""
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb", buffering=0) as file:
            while file.read(2**24):
                pass
