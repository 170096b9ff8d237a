"""Stop texts that end each row of a batch by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.models.utils_hf import MultiTokenEOSCriteria
from torch import Tensor
from transformers import StoppingCriteriaList


class StopText(MultiTokenEOSCriteria):  # type: ignore[misc]
    """Ends a row whose last tokens hold a text.

    lm-eval's own ends the batch once all rows hold it: until then a row goes on, and what it adds
    after an end-of-sequence token would be in its answer beside some neighbours and not others.
    """

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Whether each row has ended; bool, shape (B,)."""
        super().__call__(input_ids, scores, **kwargs)
        return torch.tensor(self.done_tracker, device=input_ids.device)


def stop_texts(tokenizer: Any, texts: Sequence[str], prompts: Tensor) -> StoppingCriteriaList:
    """One criterion a text.

    Args:
        tokenizer: Of the model.
        texts: Empty ones are left out.
        prompts: The padded prompts, int64, shape (B, T).

    Returns:
        For `generate`.
    """
    rows, width = prompts.shape
    return StoppingCriteriaList(StopText(text, tokenizer, width, rows) for text in texts if text)
