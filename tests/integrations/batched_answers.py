"""Answers of continuous batching and of `generate`, with the bits behind them."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from decoding_variants import PROMPTS, STEPS, answers
from tiny_models import random_tokens
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.continuous_api import ContinuousMixin

from layercast import ops
from layercast.errors import UnsupportedError

SAMPLE = {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "seed": 3}
# Two of them begin alike, over more than two blocks of 16.
SHARED = random_tokens(40, 9).tolist()
LONG = [*PROMPTS, [*SHARED, 1, 2, 3], [*SHARED, 4], random_tokens(70, 8).tolist()]
# The field has another name in older releases.
PAGE_SIZE = "page_size" if hasattr(ContinuousBatchingConfig, "page_size") else "block_size"
# Older releases hand over one answer a prompt, and drop its other samples.
HANDS_OVER_SAMPLES = "__child#" in inspect.getsource(ContinuousMixin.generate_batch)


def batching(page_size=16, num_blocks=60, max_batch_tokens=256, **options):
    """A configuration under which 7 sequences fit, whatever the release calls its fields."""
    options = {PAGE_SIZE: page_size, "num_blocks": num_blocks, **options}
    return ContinuousBatchingConfig(
        max_batch_tokens=max_batch_tokens, return_logprobs=True, **options
    )


def batched(model, prompts, config=None, **options):
    """(tokens, bits of their log-probabilities) of each answer."""
    options = {"max_new_tokens": STEPS, "pad_token_id": 0, **options}
    results = model.generate_batch(
        prompts,
        generation_config=GenerationConfig(**options),
        continuous_batching_config=config or batching(),
    )
    return [(r.generated_tokens, bits(r.logprobs)) for r in results.values()]


def batched_samples(model, prompts, config, **options):
    """As `batched`, in the order of `generate`; None if transformers drops samples, and is refused.

    Children come before their parent, whose sample has index 0.
    """
    n = options.get("num_return_sequences", 1)
    if n > 1 and not HANDS_OVER_SAMPLES:
        with pytest.raises(UnsupportedError, match="Update transformers, or use generate"):
            batched(model, prompts, config, **options)
        return None
    got = batched(model, prompts, config, **options)
    return [got[i + (j - 1) % n] for i in range(0, len(got), n) for j in range(n)]


def bits(logprobs):
    """Float32 numbers as integers."""
    return np.array(logprobs, dtype=np.float32).view(np.int32).tolist()


def alone(model, prompts, **options):
    """The same of `generate`, one prompt at a time."""
    found = []
    for prompt in prompts:
        for answer in answers(model, [prompt], **options):
            rows = ops.log_softmax(answer.logits)
            chosen = rows.gather(1, torch.tensor(answer.tokens)[:, None])[:, 0]
            found.append((answer.tokens, bits(chosen.numpy())))
    return found
