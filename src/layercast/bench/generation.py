"""Seconds a greedy decode step and of a prefill, through `model.generate`, as a user calls it."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from layercast.bench.inputs import generator
from layercast.bench.timing import Clock


class Stopwatch(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Notes when each step's logits are there; changes nothing."""

    layercast_exact = True

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.times: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Note the time."""
        self.times.append(self._clock())
        return scores


def prompts(model: Any, rows: int, tokens: int) -> Tensor:
    """Return the same random token ids each time, shape (rows, tokens)."""
    return torch.randint(0, model.config.vocab_size, (rows, tokens), generator=generator())


def generate(model: Any, input_ids: Tensor, tokens: int, stopwatch: Stopwatch) -> None:
    """Decode greedily, never stopping early."""
    model.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        logits_processor=LogitsProcessorList([stopwatch]),
        generation_config=GenerationConfig(
            do_sample=False, num_beams=1, max_new_tokens=tokens, use_cache=True, pad_token_id=0
        ),
    )


def prefill_and_decode_seconds(
    model: Any, input_ids: Tensor, steps: int, clock: Clock = time.perf_counter
) -> tuple[float, float]:
    """Return the time from the call to the first logits, and the mean of `steps` decode steps.

    The first step is not timed.
    """
    stopwatch = Stopwatch(clock)
    began = clock()
    # Logits come after the prefill, after the untimed step and after each timed one.
    generate(model, input_ids, steps + 2, stopwatch)
    times = stopwatch.times
    return times[0] - began, (times[-1] - times[1]) / steps


def decode_seconds(
    model: Any, input_ids: Tensor, steps: int, clock: Clock = time.perf_counter
) -> float:
    """Return the mean of `steps` decode steps; the prefill and the first step are not timed."""
    return prefill_and_decode_seconds(model, input_ids, steps, clock)[1]


def prefill_seconds(model: Any, input_ids: Tensor, clock: Clock = time.perf_counter) -> float:
    """Return the time from the call to the first logits."""
    stopwatch = Stopwatch(clock)
    began = clock()
    generate(model, input_ids, 1, stopwatch)
    return stopwatch.times[0] - began
