"""Other ways of decoding than the axes' greedy one, each as a digest of answers and logits."""

from __future__ import annotations

import hashlib

import numpy as np
from decoding_variants import PROMPTS, answers
from torch import nn

_WAYS: dict[str, tuple[list[list[int]], dict]] = {
    "sampling": (PROMPTS, {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "seed": 1}),
    "samples": (PROMPTS, {"do_sample": True, "num_return_sequences": 2, "seed": 2}),
    "beams": (PROMPTS, {"do_sample": False, "num_beams": 3}),
    # Drafts are of one sequence.
    "prompt lookup": (PROMPTS[:1], {"do_sample": False, "prompt_lookup_num_tokens": 3}),
}
_STEPS = 8


def decodings(model: nn.Module) -> dict[str, str]:
    """Way of decoding to digest."""
    found = {}
    for way, (prompts, options) in _WAYS.items():
        digest = hashlib.sha256()
        for answer in answers(model, prompts, max_new_tokens=_STEPS, **options):
            digest.update(np.array(answer.tokens).tobytes())
            digest.update(answer.logits.contiguous().numpy().tobytes())
        found[way] = digest.hexdigest()
    return found
