"""What the cases of one run share: clock, memory, and models that are loaded once."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from torch import Tensor

from layercast.bench.caches import (
    PAST_CACHE,
    Rotation,
    available_memory_bytes,
    last_level_cache_bytes,
    rotate,
)
from layercast.bench.case import Variant
from layercast.bench.disturbance import LoadMeter
from layercast.bench.model_worker import ModelWorker
from layercast.bench.timing import Clock, RepeatedCalls, repeated

#: Longer than the threads of GNU OpenMP spin after a parallel region before they sleep.
PAUSE_SECONDS = 0.02


@dataclass
class Workspace:
    """The resources of a run; a context manager that gives them back.

    Attributes:
        clock: Seconds.
        pause: Waits until other libraries' threads are at rest.
        disturbed: Whether others took the processor since it was last asked.
        turn_seconds: A turn of a short operation repeats it for so long.
        past_bytes: Bytes read between two uses of the same weights.
        memory_bytes: What the copies of one tensor may take.
    """

    clock: Clock = time.perf_counter
    pause: Callable[[], None] = lambda: time.sleep(PAUSE_SECONDS)
    disturbed: Callable[[], bool] = field(default_factory=lambda: LoadMeter().disturbed)
    turn_seconds: float = 0.01
    past_bytes: int = field(default_factory=lambda: PAST_CACHE * last_level_cache_bytes())
    memory_bytes: int = field(default_factory=lambda: available_memory_bytes() // 4)
    _stack: ExitStack = field(default_factory=ExitStack)
    _checkpoints: dict[str, Path] = field(default_factory=dict)
    _workers: dict[tuple[str, Variant], ModelWorker] = field(default_factory=dict)

    def __enter__(self) -> Workspace:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the models' processes and remove the checkpoints."""
        self._workers.clear()
        self._checkpoints.clear()
        self._stack.close()

    def turns(self, calls: Mapping[Variant, Callable[[], object]]) -> dict[Variant, RepeatedCalls]:
        """Make a turn of each variant's call."""
        return {
            variant: repeated(
                call, turn_seconds=self.turn_seconds, clock=self.clock, pause=self.pause
            )
            for variant, call in calls.items()
        }

    def rotate(self, *tensors: Tensor) -> Rotation:
        """Copy tensors that are read together past the last-level cache, as memory allows."""
        return rotate(tensors, past_bytes=self.past_bytes, limit_bytes=self.memory_bytes)

    def checkpoint(self, model: str) -> Path:
        """Return the folder of a random checkpoint of `checkpoint.MODELS`, made at first use."""
        if model not in self._checkpoints:
            from layercast.bench.checkpoint import save_random_checkpoint

            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="layercast-"))
            self._checkpoints[model] = save_random_checkpoint(Path(folder), model)
        return self._checkpoints[model]

    def forget(self, model: str) -> None:
        """Remove a checkpoint's files before the run ends; its workers must have ended."""
        shutil.rmtree(self._checkpoints.pop(model))

    def worker(self, model: str, variant: Variant) -> ModelWorker:
        """Return the process of a variant's model on a checkpoint, started at first use."""
        if (model, variant) not in self._workers:
            worker = ModelWorker(self.checkpoint(model), variant)
            self._stack.callback(worker.close)
            self._workers[model, variant] = worker
        return self._workers[model, variant]
