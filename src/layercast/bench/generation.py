"""A whole model: milliseconds a greedy decode step, and of a prefill, through `model.generate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from layercast.bench.case import Case, Facts, Prepared, Variant
from layercast.bench.checks import relative_errors, require_bits
from layercast.bench.inputs import generator
from layercast.bench.timing import Clock, Schedule
from layercast.bench.workspace import Workspace

#: Turns are long; their spread is small.
SCHEDULE = Schedule(warmup_rounds=1, rounds_min=5, rounds_max=9, seconds=25.0)


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


@dataclass
class DecodeTurn:
    """Generates; a sample is the mean of the steps after the first, which is not timed.

    Attributes:
        model: Any variant's.
        prompts: Token ids, shape (B, T).
        steps: Timed steps.
        clock: Seconds.
        pause: Waits before the turn.
    """

    model: Any
    prompts: Tensor
    steps: int
    clock: Clock
    pause: Callable[[], None]

    def __call__(self) -> float:
        """Take the turn."""
        self.pause()
        stopwatch = Stopwatch(self.clock)
        # Logits come after the prefill, after the untimed step and after each timed one.
        generate(self.model, self.prompts, self.steps + 2, stopwatch)
        return (stopwatch.times[-1] - stopwatch.times[1]) / self.steps


@dataclass
class PrefillTurn:
    """Generates one token: from the call to the first logits."""

    model: Any
    prompts: Tensor
    clock: Clock
    pause: Callable[[], None]

    def __call__(self) -> float:
        """Take the turn."""
        self.pause()
        stopwatch = Stopwatch(self.clock)
        began = self.clock()
        generate(self.model, self.prompts, 1, stopwatch)
        return stopwatch.times[0] - began


def generate(model: Any, prompts: Tensor, tokens: int, stopwatch: Stopwatch) -> None:
    """Decode greedily as a user does, never stopping early."""
    model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        logits_processor=LogitsProcessorList([stopwatch]),
        generation_config=GenerationConfig(
            do_sample=False, num_beams=1, max_new_tokens=tokens, use_cache=True, pad_token_id=0
        ),
    )


def prepare_decode(case: Case, workspace: Workspace) -> Prepared:
    """Load the models of all variants and make a batch of prompts.

    Args:
        case: Sizes prompt (tokens) and steps (timed a turn); rows is the batch.
        workspace: Holds the models.
    """
    models = {variant: workspace.model(variant) for variant in case.variants}
    prompts = _prompts(models[Variant.LAYERCAST], max(2, case.rows), case.size("prompt"))
    turns = {
        variant: DecodeTurn(
            model, prompts[: case.rows], case.size("steps"), workspace.clock, workspace.pause
        )
        for variant, model in models.items()
    }
    return Prepared(
        turns=turns,
        check=lambda: _check(models, prompts),
        facts=_facts(models),
        schedule=SCHEDULE,
    )


def prepare_prefill(case: Case, workspace: Workspace) -> Prepared:
    """Load the models of all variants and make one prompt.

    Args:
        case: rows is its length in tokens.
        workspace: Holds the models.
    """
    models = {variant: workspace.model(variant) for variant in case.variants}
    prompts = _prompts(models[Variant.LAYERCAST], 2, case.rows)
    turns = {
        variant: PrefillTurn(model, prompts[:1], workspace.clock, workspace.pause)
        for variant, model in models.items()
    }
    return Prepared(
        turns=turns,
        check=lambda: _check(models, prompts),
        facts=_facts(models),
        schedule=SCHEDULE,
    )


def _prompts(model: Any, batch: int, tokens: int) -> Tensor:
    return torch.randint(0, model.config.vocab_size, (batch, tokens), generator=generator())


def _facts(models: dict[Variant, Any]) -> Facts:
    parameters = {p.data_ptr(): p for p in models[Variant.LAYERCAST].parameters()}
    return {
        "parameters": sum(p.numel() for p in parameters.values()),
        "weight_bytes": sum(p.nbytes for p in parameters.values()),
    }


def _check(models: dict[Variant, Any], prompts: Tensor) -> Facts:
    """Compare a sequence's logits in the batch with those it has alone, and with stock FP32's."""
    ours = models[Variant.LAYERCAST]
    batched = _last_logits(ours, prompts)
    compared = 0
    for row in (0, len(prompts) - 1):
        alone = _last_logits(ours, prompts[row : row + 1])[0]
        compared += require_bits("logits of a sequence in a batch", batched[row], alone)
    facts: dict[str, object] = {"logits_equal_alone_and_in_the_batch": compared}
    if Variant.STOCK_FP32 in models:
        results = {variant: _last_logits(model, prompts[:1]) for variant, model in models.items()}
        stock = results.pop(Variant.STOCK_FP32).double()
        facts["relative_difference_to_stock_fp32"] = relative_errors(results, stock)
    return facts


def _last_logits(model: Any, prompts: Tensor) -> Tensor:
    logits: Tensor = model(prompts, logits_to_keep=1).logits
    return logits[:, -1]
