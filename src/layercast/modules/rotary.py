"""Cosine and sine tables of rotary position embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layercast import ops
from layercast.modules.rope_frequencies import RopeFrequencies


class RotaryEmbedding(nn.Module):
    """Position ids to (cosine, sine) tables, computed in binary64 and rounded once.

    See `layercast.ops.rotary_table`. A model's own `apply_rotary_pos_emb` may stay
    as it is: `q * cos + rotate_half(q) * sin` is two IEEE multiplications and one
    addition, each rounded, which is what `layercast.ops.rotary` does.
    """

    def __init__(self, frequencies: RopeFrequencies) -> None:
        """Make the module.

        Args:
            frequencies: One inverse frequency for each pair of channels, and the
                factor that scales cosines and sines.
        """
        super().__init__()
        self.frequencies = frequencies
        # A plain attribute: a buffer would follow dtype casts and be initialised again on loading.
        self._inv_freq = (
            None
            if frequencies.inv_freq is None
            else torch.tensor(frequencies.inv_freq, dtype=torch.float64, device="cpu")
        )

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Make the tables of one forward pass.

        Args:
            x: Unused; part of transformers' signature.
            position_ids: int64, shape (B, T) or (1, T).

        Returns:
            (cos, sin), each float32 of shape (B, T, head_dim), the second half
            repeating the first.
        """
        frequencies = self.frequencies
        return ops.rotary_table(
            position_ids,
            head_dim=frequencies.head_dim,
            base=frequencies.base,
            inv_freq=self._inv_freq,
            attention_scaling=frequencies.attention_scaling,
        )

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        f = self.frequencies
        return f"head_dim={f.head_dim}, base={f.base}, attention_scaling={f.attention_scaling}"
