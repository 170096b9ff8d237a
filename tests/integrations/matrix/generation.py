"""Axis: `generate` of a left-padded batch, with a growing and a static cache."""

from __future__ import annotations

import torch
from forward_variants import SEQUENCES, alone

from matrix.subject import Pairs, Subject

_PROMPTS = [SEQUENCES[i][:length] for i, length in ((0, 20), (1, 5), (2, 33), (5, 1))]
_STEPS = 12


def pairs(subject: Subject) -> Pairs:
    """What each token was chosen from, against a forward pass over the finished sequence."""
    model = subject.model
    width = max(map(len, _PROMPTS))
    ids = torch.stack([torch.cat((torch.zeros(width - len(p)).long(), p)) for p in _PROMPTS])
    mask = torch.stack([(torch.arange(width) >= width - len(p)).long() for p in _PROMPTS])
    for cache in (None, "static"):
        out = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=_STEPS,
            do_sample=False,
            pad_token_id=0,
            cache_implementation=cache,
            output_logits=True,
            return_dict_in_generate=True,
        )
        for row, prompt in enumerate(_PROMPTS):
            sequence = out.sequences[row, width - len(prompt) :]
            expected = alone(model, sequence)[-_STEPS - 1 : -1]
            got = torch.stack([step[row] for step in out.logits])
            yield subject.log_softmax(expected), subject.log_softmax(got)
