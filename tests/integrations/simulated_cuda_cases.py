"""Runs models on a simulated CUDA device and prints what differs from the CPU.

A program of its own: `simulated_cuda` changes functions of torch. What is shown is everything
between the kernels: on which device tensors are made, what waits for the device, and what a
captured graph does when it is replayed. What the kernels compute is shown elsewhere.
"""

from __future__ import annotations

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import collections
import json
import tempfile
import traceback
import warnings
from pathlib import Path

import torch
from simulated_cuda import SimulatedCuda, WaitError, place
from tiny_models import CONFIGS, VOCABULARY, save_checkpoint
from transformers import ContinuousBatchingConfig, DynamicCache, GenerationConfig, StaticCache
from transformers.generation.continuous_batching import continuous_api, input_outputs

import layercast
from layercast.errors import UnsupportedError
from layercast.integrations.transformers import generate
from layercast.integrations.transformers.sampling import Sampling

DEVICE = SimulatedCuda()
FOLDER = Path(tempfile.mkdtemp())
WINDOWS = ("qwen2_hybrid", "mistral", "gemma2", "gemma3")
LENGTH, PROMPT, CACHED = 14, 8, 32
PROMPTS = [[(i * i + n) % VOCABULARY for i in range(n)] for n in (20, 5, 33, 1)]
DECODING = {
    "greedy": {},
    "static": {"cache_implementation": "static"},
    "sample": {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "seed": 3},
    "scores": {"do_sample": True, "top_p": 0.9, "top_k": 20, "min_p": 0.01, "output_scores": True}
    | {"return_dict_in_generate": True},
    "samples": {"do_sample": True, "num_return_sequences": 2},
    "beams": {"num_beams": 3},
    "penalty": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_length": 12},
    "bias": {"sequence_bias": [[[5], 1.5], [[3, 4], -2.0]], "bad_words_ids": [[7]]}
    | {"suppress_tokens": [9]},
    "lookup": {"prompt_lookup_num_tokens": 3},
    "chunks": {"prefill_chunk_size": 3},
    "stop": {"eos_token_id": [11, 12, 13, 14, 15, 16]},
}
BATCHING = {
    "greedy": {},
    "sample": {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "seed": 3},
    "penalty": {"repetition_penalty": 1.2, "bad_words_ids": [[7]]},
}


def models(architecture):
    """The same model on the CPU and on the device."""
    folder = FOLDER / architecture
    if not folder.exists():
        save_checkpoint(folder, architecture)
    on_cpu, there = layercast.load(folder), layercast.load(folder)
    with DEVICE:
        return on_cpu, place(there)


def sequences():
    """Two rows of tokens, the second padded, and mask and positions as wide as the cache."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (2, LENGTH), generator=generator)
    mask = torch.ones(2, CACHED, dtype=torch.int64)
    mask[1, :3] = 0
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)


def forward(model, cache, ids, mask, positions):
    return model(ids, attention_mask=mask, position_ids=positions, past_key_values=cache).logits


def captured(architecture):
    """Steps of a captured graph that differ from the CPU's, and what waits for one beforehand."""
    on_cpu, model = models(architecture)
    ids, mask, positions = sequences()
    cache, expected = StaticCache(config=on_cpu.config, max_cache_len=CACHED), []
    for begin, end in [(0, PROMPT), *((i, i + 1) for i in range(PROMPT, LENGTH))]:
        part = ids[:, begin:end], mask[:, :end], positions[:, begin:end]
        expected.append(forward(on_cpu, cache, *part))
    with DEVICE:
        cache = StaticCache(config=model.config, max_cache_len=CACHED)
        part = (x.to("cuda") for x in (ids[:, :PROMPT], mask[:, :PROMPT], positions[:, :PROMPT]))
        got = [forward(model, cache, *part)]
        columns = ids[:, PROMPT : PROMPT + 1], mask, positions[:, PROMPT : PROMPT + 1]
        token, wide, position = (x.to("cuda") for x in columns)
        DEVICE.waits.clear()
        got.append(forward(model, cache, token, wide, position))
        waits = list(DEVICE.waits)
        with DEVICE.capture() as graph:
            logits = forward(model, cache, token, wide, position)
        for i in range(PROMPT + 1, LENGTH):
            token.copy_(ids[:, i : i + 1])
            position.copy_(positions[:, i : i + 1])
            graph.replay()
            got.append(logits.clone())
        differing = sum(not torch.equal(a.cpu(), b) for a, b in zip(got, expected, strict=True))
        position[0] += 1  # the first row goes on, the second is given its last position again
        graph.replay()
        spoilt = logits.cpu().isnan().all(-1).flatten().tolist()
    return {"differing": differing, "waits": waits, "spoilt": spoilt}


def captured_of_a_window(architecture):
    """How a capture is refused that would not carry on."""
    _, model = models(architecture)
    refused = []
    with DEVICE:
        ids, mask, positions = (x.to("cuda") for x in sequences())
        prompt = ids[:, :PROMPT], mask[:, :PROMPT], positions[:, :PROMPT]
        step = ids[:, PROMPT : PROMPT + 1], mask[:, : PROMPT + 1], positions[:, PROMPT : PROMPT + 1]
        for kind, options in ((StaticCache, {"max_cache_len": CACHED}), (DynamicCache, {})):
            cache = kind(config=model.config, **options)
            forward(model, cache, *prompt)
            try:
                with DEVICE.capture():
                    forward(model, cache, *step)
            except UnsupportedError as error:
                refused.append(str(error).partition(",")[0])
    return refused


def decoding(architecture):
    """Ways of decoding whose tokens or scores differ from the CPU's."""
    on_cpu, model = models(architecture)
    ids, mask, _ = sequences()
    differing = []
    for name, options in DECODING.items():
        rows = slice(0, 1) if name == "lookup" else slice(None)
        arguments = {"max_new_tokens": 8, "pad_token_id": 0, **options}
        expected = on_cpu.generate(ids[rows], attention_mask=mask[rows, :LENGTH], **arguments)
        with DEVICE:
            there = (x.to("cuda") for x in (ids[rows], mask[rows, :LENGTH]))
            inputs = dict(zip(("input_ids", "attention_mask"), there, strict=True))
            got = model.generate(**inputs, **arguments)
        pairs = [(got, expected)]
        if name == "scores":
            pairs = [(got.sequences, expected.sequences)]
            pairs += zip(got.scores, expected.scores, strict=True)
        if not all(torch.equal(a.inner, b) for a, b in pairs):
            differing.append(name)
    for sampling in (None, Sampling(temperature=0.8, top_p=0.9, seed=2)):
        options = {"max_new_tokens": 6, "sampling": sampling}
        expected = generate(on_cpu, PROMPTS, **options)
        with DEVICE:
            got = generate(model, PROMPTS, **options)
        if any((a.digests != b.digests).any() for a, b in zip(got, expected, strict=True)):
            differing.append(f"generate, {sampling}")
    return differing


def batched(model, options, *, there=False):
    """Tokens and log-probabilities of continuous batching."""
    pages = "page_size" if hasattr(ContinuousBatchingConfig, "page_size") else "block_size"
    batching = ContinuousBatchingConfig(
        max_batch_tokens=64, num_blocks=60, return_logprobs=True, **{pages: 16}
    )
    config = GenerationConfig(max_new_tokens=10, pad_token_id=0, **options)
    torch.cuda.is_available = lambda: there
    results = model.generate_batch(
        PROMPTS, generation_config=config, continuous_batching_config=batching
    )
    return [(each.generated_tokens, each.logprobs) for each in results.values()]


def continuous_batching(architecture):
    """Ways of it that differ from the CPU's, and what waits for the device how often a step."""
    on_cpu, model = models(architecture)
    expected = {name: batched(on_cpu, options) for name, options in BATCHING.items()}
    manager = continuous_api.ContinuousBatchingManager
    loop = manager._run_generation_loop

    def run(self, *args, **kwargs):  # in a thread of its own
        with DEVICE:
            return loop(self, *args, **kwargs)

    manager._run_generation_loop = run
    input_outputs.create_device_stream = lambda device: None  # not there in older releases
    differing, waits = [], {}
    for name, options in BATCHING.items():
        DEVICE.waits.clear()
        with DEVICE:
            if batched(model, options, there=True) != expected[name]:
                differing.append(name)
        counts = collections.Counter(w for w in DEVICE.waits if not w.startswith("transformers"))
        steps = counts["paging.py"]
        waits[name] = {origin: count / steps for origin, count in sorted(counts.items())}
    manager._run_generation_loop = loop
    return {"differing": differing, "waits": waits}


def controls():
    """That the device refuses what a real one would."""
    _, model = models("llama")
    found = []
    with DEVICE:
        x = torch.ones(3, device="cuda")
        used = StaticCache(config=model.config, max_cache_len=CACHED)
        model(torch.zeros(1, 3, dtype=torch.int64, device="cuda"), past_key_values=used)
        for name, wrong in {
            "a tensor of the CPU": lambda: x + torch.ones(3),
            "a read": lambda: bool((x > 0).all()),
            "a copy": lambda: torch.tensor([1.0], device="cuda"),
            "a mask": lambda: x[x > 0],
            "a count": lambda: int(used.get_seq_length()),
        }.items():
            try:
                with DEVICE.capture():
                    wrong()
            except (RuntimeError, WaitError):
                found.append(name)
    return found


def main():
    """Print each case's name and outcome."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    cases = {f"captured {name}": (captured, name) for name in CONFIGS if name not in WINDOWS}
    cases |= {f"refused {name}": (captured_of_a_window, name) for name in WINDOWS}
    for name in ("llama", "mistral"):
        cases[f"decoding {name}"] = decoding, name
        cases[f"batching {name}"] = continuous_batching, name
    cases["controls"] = (controls,)
    for name, (case, *arguments) in cases.items():
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        try:
            with torch.inference_mode(case is not decoding and case is not continuous_batching):
                outcome = case(*arguments)
        except Exception:
            outcome = traceback.format_exc(limit=-6)
        print(json.dumps([name, outcome]), flush=True)


if __name__ == "__main__":
    main()
