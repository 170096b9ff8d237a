"""The tokens that are a row's own, in a batch padded on the left."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class OwnTokens:
    """Where each row of a padded batch holds tokens of its own.

    `generate` appends columns to the right of the prompts; all of them are the row's own.
    """

    def __init__(self, prompts: Tensor, attention_mask: Tensor | None) -> None:
        """Look at the prompts once.

        Args:
            prompts: int64, shape (B, T).
            attention_mask: Shape (B, T), 0 for padding; None for none.
        """
        self._prompts = prompts
        self._mask: Tensor | None = None
        if attention_mask is not None and not bool(attention_mask.bool().all()):
            self._mask = attention_mask.bool()

    @property
    def device(self) -> torch.device:
        """Where the tokens lie."""
        return self._prompts.device

    @property
    def padded(self) -> bool:
        """Whether any row holds padding."""
        return self._mask is not None

    def prompt_ids(self, row: int) -> list[int]:
        """The prompt of a row, without padding."""
        tokens = self._prompts[row]
        return (tokens if self._mask is None else tokens[self._mask[row]]).tolist()

    def lengths(self, width: int) -> Tensor:
        """How many tokens of its own each row has among the first `width` columns.

        Returns:
            int64, shape (B,).
        """
        rows, prompt_width = self._prompts.shape
        if self._mask is None:
            return torch.full((rows,), width, dtype=torch.int64, device=self._prompts.device)
        return self._mask.sum(dim=1) + (width - prompt_width)

    def rows(self, input_ids: Tensor) -> list[Tensor]:
        """Each row's own tokens of a batch that has grown since.

        Args:
            input_ids: int64, shape (B, at least T).

        Returns:
            B tensors, int64, shape (1, own length).
        """
        if self._mask is None:
            return list(input_ids[:, None])
        grown = input_ids.shape[1] - self._prompts.shape[1]
        mask = F.pad(self._mask, (0, grown), value=True)
        return [tokens[own][None] for tokens, own in zip(input_ids, mask, strict=True)]
