"""Answers of `model.generate` with the bits behind them; shared by the tests of decoding."""

from __future__ import annotations

from typing import NamedTuple

import torch
from tiny_models import VOCABULARY, random_tokens
from torch import Tensor

PROMPTS = [random_tokens(length, seed).tolist() for seed, length in enumerate((20, 5, 33, 1))]
PADDING = VOCABULARY - 1
STEPS = 24


class Answer(NamedTuple):
    """Tokens up to the end of the sequence, and the logits each was chosen from."""

    tokens: list[int]
    logits: Tensor


def padded(prompts: list[list[int]], padding: int = PADDING) -> dict[str, Tensor]:
    """Prompts of one batch, padded on the left."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), padding)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return {"input_ids": ids, "attention_mask": mask}


def answers(model, prompts, *, padding: int = PADDING, **options) -> list[Answer]:
    """One batch through `model.generate`; `num_return_sequences` answers a prompt."""
    inputs = padded(prompts, padding)
    options = {"max_new_tokens": STEPS, "pad_token_id": padding, **options}
    out = model.generate(**inputs, **options, output_logits=True, return_dict_in_generate=True)
    ends = torch.tensor(options.get("eos_token_id", []), dtype=torch.int64)
    chosen = out.sequences[:, inputs["input_ids"].shape[1] :]
    logits = torch.stack(out.logits, dim=1)
    found = []
    for row, tokens in enumerate(chosen):
        stops = torch.isin(tokens, ends).nonzero()
        length = int(stops[0]) + 1 if len(stops) else len(tokens)
        found.append(Answer(tokens[:length].tolist(), logits[row, :length]))
    return found


def same(a: Answer, b: Answer) -> bool:
    """The same tokens from the same bits."""
    return a.tokens == b.tokens and torch.equal(
        a.logits.view(torch.int32), b.logits.view(torch.int32)
    )


def differing(model, *, prompts=PROMPTS, **options) -> int:
    """How many answers of a batch, or of that batch backwards, differ from those given alone."""
    samples = options.get("num_return_sequences", 1)
    groups = [answers(model, [prompt], **options) for prompt in prompts]
    together = answers(model, prompts, **options)
    backwards = answers(model, prompts[::-1], padding=0, **options)
    count = 0
    for row, alone in enumerate(groups):
        turned = len(prompts) - 1 - row
        for index, answer in enumerate(alone):
            count += not same(answer, together[row * samples + index])
            count += not same(answer, backwards[turned * samples + index])
    return count


def stepwise(model, prompt, choose, steps: int = STEPS) -> Answer:
    """Decoding written out: one forward pass a token, no cache, no batch, no loop of others."""
    tokens, rows = list(prompt), []
    with torch.inference_mode():
        for _ in range(steps):
            logits = model(torch.tensor([tokens]), use_cache=False).logits[:, -1]
            rows.append(logits[0])
            tokens.append(int(choose(tokens, logits)))
    return Answer(tokens[len(prompt) :], torch.stack(rows))
