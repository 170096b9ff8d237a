"""Cosine and sine tables of rotary position embeddings."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from layercast import ops
from layercast.errors import UnsupportedError
from layercast.modules.rope_frequencies import RopeFrequencies
from layercast.ops.backends import POISON, is_capturing


def _below(position_ids: Tensor, limit: int) -> Tensor:
    """The position ids, each of them below `limit`; in a captured graph others give NaN tables."""
    if is_capturing(position_ids):
        return position_ids.masked_fill(position_ids >= limit, POISON)
    if position_ids.numel() > 0 and (largest := int(position_ids.max())) >= limit:
        raise UnsupportedError(
            f"RotaryEmbedding: `position_ids` must stay below {limit}, the length that this "
            f"model's rope scaling was fixed for, got {largest}. Load with "
            "quantization_config=LayerCastConfig(context_length=...) of the longest sequence, "
            "which fixes the scaling of every sequence for that length."
        )
    return position_ids


class RotaryEmbedding(nn.Module):
    """Position ids to (cosine, sine) tables, computed in binary64 and rounded once.

    See `layercast.ops.rotary_table`. A model's own `apply_rotary_pos_emb` may stay
    as it is: `q * cos + rotate_half(q) * sin` is two IEEE multiplications and one
    addition, each rounded, which is what `layercast.ops.rotary` does.
    """

    def __init__(
        self,
        frequencies: RopeFrequencies | Mapping[str, RopeFrequencies],
        *,
        interleaved: bool = False,
    ) -> None:
        """Make the module.

        Args:
            frequencies: One inverse frequency for each pair of channels, and the
                factor that scales cosines and sines; or such for each type of layer.
            interleaved: Pairs are neighbouring channels (c0, c0, c1, c1, ...) instead of
                the two halves (c0, c1, ..., c0, c1, ...).
        """
        super().__init__()
        self.interleaved = interleaved
        self.frequencies: dict[str | None, RopeFrequencies] = (
            {None: frequencies}
            if isinstance(frequencies, RopeFrequencies)
            else dict(frequencies.items())
        )
        # A plain attribute: a buffer would follow dtype casts and be initialised again on loading.
        self._inv_freq = {
            layer_type: None
            if table.inv_freq is None
            else torch.tensor(table.inv_freq, dtype=torch.float64, device="cpu")
            for layer_type, table in self.frequencies.items()
        }
        self._copies: dict[tuple[str | None, torch.device], Tensor] = {}

    def _inv_freq_on(self, layer_type: str | None, device: torch.device) -> Tensor | None:
        """The frequencies where the positions lie; copied to a device once."""
        inv_freq = self._inv_freq[layer_type]
        if inv_freq is None or device.type != "cuda":
            return inv_freq
        if (layer_type, device) not in self._copies:
            self._copies[layer_type, device] = inv_freq.to(device)
        return self._copies[layer_type, device]

    def forward(
        self, x: Tensor, position_ids: Tensor, layer_type: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Make the tables of one forward pass.

        Args:
            x: Unused; part of transformers' signature.
            position_ids: int64, shape (B, T) or (1, T).
            layer_type: Whose frequencies; None where all layers share them.

        Returns:
            (cos, sin), each float32 of shape (B, T, head_dim).

        Raises:
            UnsupportedError: A position beyond the length that the scaling was fixed for. In a
                captured CUDA graph, which nothing is read from, its tables are NaN instead.
        """
        frequencies = self.frequencies[layer_type]
        limit = frequencies.position_limit
        if limit is not None:
            position_ids = _below(position_ids, limit)
        cos, sin = ops.rotary_table(
            position_ids,
            head_dim=frequencies.head_dim,
            base=frequencies.base,
            inv_freq=self._inv_freq_on(layer_type, position_ids.device),
            attention_scaling=frequencies.attention_scaling,
        )
        if self.interleaved:
            half = frequencies.head_dim // 2
            cos = cos[..., :half].repeat_interleave(2, dim=-1)
            sin = sin[..., :half].repeat_interleave(2, dim=-1)
        return cos, sin

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        tables = []
        for layer_type, f in self.frequencies.items():
            name = "" if layer_type is None else f"{layer_type}: "
            tables.append(
                f"{name}head_dim={f.head_dim}, base={f.base}, "
                f"attention_scaling={f.attention_scaling}"
            )
        return "; ".join(tables)
