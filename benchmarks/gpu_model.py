"""A decode step of a model of Qwen2.5-0.5B's shape, with a static cache, eager and as a graph."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import torch
from gpu_timing import captured, medians_in_turns
from transformers import AutoModelForCausalLM, StaticCache

import layercast
from layercast.bench.checkpoint import save_random_checkpoint
from layercast.modules.cache_name import cache_name

BATCHES = (1, 8, 32)
CONTEXT = 512


@functools.cache
def checkpoint():
    """The folder of a random checkpoint, written once."""
    return save_random_checkpoint(Path(tempfile.mkdtemp()))


@functools.cache
def models():
    """Name to model, on the device."""
    stock = functools.partial(AutoModelForCausalLM.from_pretrained, attn_implementation="sdpa")
    return {
        "layercast": layercast.load(checkpoint()).to("cuda"),
        "transformers_bf16": stock(checkpoint(), dtype=torch.bfloat16).to("cuda").eval(),
        "transformers_fp32": stock(checkpoint(), dtype=torch.float32).to("cuda").eval(),
    }


def step_of(model, batch):
    """A function that computes the same step again and again, after a prompt of `CONTEXT`."""
    cache = StaticCache(config=model.config, max_cache_len=CONTEXT + 64)
    ids = torch.randint(model.config.vocab_size, (batch, CONTEXT), device="cuda")
    held = {cache_name(model.forward): cache}
    model(ids, **held, logits_to_keep=1)
    token = ids[:, :1].contiguous()
    position = torch.full((batch, 1), CONTEXT, device="cuda")
    lengths = [layer.cumulative_length for layer in cache.layers]

    def step(_=0):
        for length in lengths:
            length.fill_(CONTEXT)
        return model(token, position_ids=position, **held).logits

    return step


def measure(batch, as_graph):
    """Contender to microseconds a step."""
    calls = {}
    for name, model in models().items():
        step = step_of(model, batch)
        if not as_graph:
            step()
            calls[name] = step
            continue
        try:
            calls[name] = captured(step).replay
        except (RuntimeError, TypeError, ValueError) as error:  # a stock model that cannot be
            if name == "layercast":
                raise
            print(f"{name} cannot be captured: {error}", flush=True)
    return medians_in_turns(calls)


def run(record):
    """Every case."""
    for as_graph in (True, False):
        for batch in BATCHES:
            case = {"operation": "decode step", "model": "0.5 B", "batch": batch}
            case |= {"context": CONTEXT, "cuda_graph": as_graph}
            record.take(case, lambda batch=batch, as_graph=as_graph: measure(batch, as_graph))
