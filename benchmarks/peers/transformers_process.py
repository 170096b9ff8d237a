"""A variant of `layercast.bench` in transformers, as an engine.

python -m peers.transformers_process FOLDER VARIANT THREADS SEQUENCES
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.utils import logging

import layercast
from layercast import ops
from layercast.bench.case import Variant
from layercast.bench.checkpoint import load_variant
from layercast.bench.generation import prefill_and_decode_seconds
from peers.protocol import logprob_bits, row_digest, serve


class TransformersEngine:
    """A model of transformers, stock or layercast's, decoded by its own `generate`."""

    def __init__(self, model, variant):
        self._model = model
        self._variant = variant

    def facts(self):
        """Return what bears on speed and bits."""
        return {
            "engine": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "layercast": layercast.__version__ if self._variant == "layercast" else None,
            "layercast_isa": ops.isa() if self._variant == "layercast" else None,
            "threads": torch.get_num_threads(),
            "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "attention": self._model.config._attn_implementation,
        }

    def generate(self, prompts, steps):
        """Time a prefill and decode steps."""
        prefill, decode = prefill_and_decode_seconds(self._model, torch.tensor(prompts), steps)
        return {"prefill_seconds": prefill, "decode_seconds": decode}

    def answer(self, prompts, max_new_tokens, ends):
        """Answer all prompts as one batch, greedily."""
        ids, mask = left_padded(prompts)
        rows = Rows(self._variant == "layercast")
        found = self._model.generate(
            ids,
            attention_mask=mask,
            logits_processor=LogitsProcessorList([rows]),
            generation_config=GenerationConfig(
                do_sample=False,
                num_beams=1,
                max_new_tokens=max_new_tokens,
                eos_token_id=ends,
                pad_token_id=0,
            ),
        )[:, ids.shape[1] :].tolist()
        tokens = [until_end(answer, ends) for answer in found]
        return {
            "tokens": tokens,
            "logprob_bits": [b[: len(t)] for b, t in zip(rows.of_best, tokens, strict=True)],
            "digests": [d[: len(t)] for d, t in zip(rows.digests, tokens, strict=True)],
        }


def left_padded(prompts):
    """Return token ids and attention mask, shape (prompts, longest)."""
    longest = max(map(len, prompts))
    ids = [[0] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def until_end(tokens, ends):
    """Cut an answer behind its first end-of-sequence token."""
    stop = next((i + 1 for i, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:stop]


class Rows(LogitsProcessor):
    """Keeps, at each step, each sequence's best log-probability and a digest of the whole row."""

    layercast_exact = True

    def __init__(self, ours):
        self._ours = ours
        self.of_best = []
        self.digests = []

    def __call__(self, input_ids, scores):
        """Note the rows; change nothing."""
        logits = scores.float()
        rows = ops.log_softmax(logits) if self._ours else torch.log_softmax(logits, -1)
        if not self.of_best:
            self.of_best, self.digests = ([[] for _ in rows] for _ in range(2))
        best = rows.max(dim=-1).values.tolist()
        for i, row in enumerate(rows.numpy()):
            self.of_best[i].append(logprob_bits(best[i]))
            self.digests[i].append(row_digest(row))
        return scores


def main(folder, variant, threads, sequences):
    """Serve; how many sequences there will be at most is nothing that transformers asks."""
    torch.set_num_threads(int(threads))
    logging.disable_progress_bar()

    def load(loading):
        loading()
        return TransformersEngine(load_variant(Path(folder), Variant(variant)), variant)

    with torch.inference_mode():
        serve(load)


if __name__ == "__main__":
    main(*sys.argv[1:])
