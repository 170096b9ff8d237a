"""Log-probabilities of continuations, the same bits in every batch."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from layercast import ops


def continuation_log_probabilities(
    model: Any, sequences: Sequence[Sequence[int]], lengths: Sequence[int]
) -> list[Tensor]:
    """Log-probability of every token of the vocabulary at each place of each continuation.

    Shorter sequences are padded on the right. A token sees only what stands before it, so what
    follows changes no bit of its row, and needs no mask.

    Args:
        model: A loaded layercast model.
        sequences: Token ids of context and continuation, one list a row.
        lengths: Of each row, how many of the last tokens are its continuation; at least one less
            than the row has.

    Returns:
        A row each: float32, shape (length, V), by `layercast.ops.log_softmax`.
    """
    inputs = [torch.tensor(ids[:-1], dtype=torch.int64) for ids in sequences]
    padded = pad_sequence(inputs, batch_first=True).to(model.device)
    firsts = [len(row) - length for row, length in zip(inputs, lengths, strict=True)]
    options: dict[str, Any] = {"use_cache": False}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        # Contexts are long and vocabularies large: their logits are not wanted.
        options["logits_to_keep"] = padded.shape[1] - min(firsts)
    with torch.inference_mode():
        logits = model(padded, **options).logits
        skipped = padded.shape[1] - logits.shape[1]
        return [
            ops.log_softmax(row[first - skipped : first - skipped + length].contiguous())
            for row, first, length in zip(logits, firsts, lengths, strict=True)
        ]


def score(log_probabilities: Tensor, tokens: Sequence[int]) -> tuple[float, bool]:
    """Log-likelihood of a continuation, and whether greedy decoding would give it.

    Args:
        log_probabilities: float32, shape (length, V).
        tokens: The continuation's last `length` tokens or fewer; the last rows count.

    Returns:
        The sum of its tokens' log-probabilities, rounded once, so that no order of addition
        matters; and whether each token has the highest, ties by the lower index.
    """
    rows = log_probabilities[-len(tokens) :]
    chosen = torch.tensor(tokens, dtype=torch.int64, device=rows.device)
    likelihood = math.fsum(rows.gather(1, chosen[:, None])[:, 0].tolist())
    return likelihood, bool((ops.argmax(rows) == chosen).all())
