"""Attention over transformers' paged cache: the sequences of a packed batch, each by itself."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from layercast import ops
from layercast.errors import UnsupportedError

_FULL, _SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class PackedBatch:
    """One step of continuous batching: tokens of several sequences in one row.

    Attributes:
        cache: The paged cache of transformers.
        write_index: One tensor for each kind of layer: slots of the new keys.
        read_index: One tensor for each kind of layer: slots of all keys; empty where no sequence
            has any in the cache yet.
        queries: Columns of each sequence's new tokens.
        positions: Position of each sequence's first new token.
        keys: Kind of layer to the rows of each sequence's keys among those the cache returns.
    """

    cache: Any
    write_index: list[Tensor]
    read_index: list[Tensor]
    queries: list[slice]
    positions: list[int]
    keys: dict[str, list[slice]]
    _placed: dict[str, list[tuple[slice, slice, Tensor, Tensor]]] = field(default_factory=dict)

    def mask(self) -> Tensor:
        """What is passed as attention mask: positions of the queries, and this batch with them.

        Returns:
            int64, shape (1, 1, 1, T + 1), which models hand through untouched.
        """
        pairs = zip(self.queries, self.positions, strict=True)
        counted = [torch.arange(at, at + (q.stop - q.start)) for q, at in pairs]
        packed = torch.cat([*counted, torch.zeros(1, dtype=torch.int64)])[None, None, None]
        packed.layercast_packed = self  # type: ignore[attr-defined]
        return packed

    def attention(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scale: float,
        softcap: float | None,
    ) -> Tensor:
        """Put new keys and values into the cache and attend to each sequence's own.

        Args:
            module: Of the layer `layer_idx`.
            query: Float32, shape (1, Hq, T, D), packed.
            key: Float32, shape (1, Hkv, T, D), packed.
            value: As `key`.
            scale: Factor of the scores.
            softcap: Bound of the scores, or None.

        Returns:
            Float32, shape (1, T, Hq, D).
        """
        layer: Any = module.layer_idx
        kind, window = self._kind(layer)
        keys, values = self._update(layer, key, value)
        _, Hq, T, D = query.shape
        output = query.new_empty((1, T, Hq, D))
        for new, own, query_positions, key_positions in self._sequences(kind):
            output[:, new] = ops.attention(
                query[:, :, new],
                keys[:, :, own],
                values[:, :, own],
                query_positions=query_positions,
                key_positions=key_positions,
                scale=scale,
                window=window,
                softcap=softcap,
            )
        return output

    def window(self, module: nn.Module) -> int | None:
        """How many keys a query of this layer sees, itself included; None for all."""
        layer: Any = module.layer_idx
        return self._kind(layer)[1]

    def _sequences(self, kind: str) -> list[tuple[slice, slice, Tensor, Tensor]]:
        """Of each sequence: columns of its queries, rows of its keys, positions of both."""
        if kind not in self._placed:
            placed = self._placed[kind] = []
            rows = zip(self.queries, self.keys[kind], self.positions, strict=True)
            for new, own, position in rows:
                # A sliding-window cache returns the last keys only, the queries' own included.
                end = position + (new.stop - new.start)
                first = end - (own.stop - own.start)
                positions = torch.arange(position, end)[None], torch.arange(first, end)[None]
                placed.append((new, own, *positions))
        return self._placed[kind]

    def _kind(self, layer: int) -> tuple[str, int | None]:
        allocators = getattr(self.cache, "layer_to_allocator", None)
        if allocators is None:  # as in older releases of transformers
            window = self.cache.sliding_windows[layer]
            return (_FULL, None) if window == 1 else (_SLIDING, window)
        kind = allocators[layer].layer_type
        return kind, allocators[layer].sliding_window if kind == _SLIDING else None

    def _update(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all sequences, each of shape (1, Hkv, rows, D)."""
        if _takes_options(self.cache.update.__func__):
            unused = dict.fromkeys(self.keys, torch.zeros(0, dtype=torch.int32))
            options = {
                "cu_seq_lens_k": unused,
                "max_length_k": dict.fromkeys(self.keys, 0),
                "read_index": self.read_index,
                "write_index": self.write_index,
            }
            updated: tuple[Tensor, Tensor] = self.cache.update(key, value, layer, options)
            return updated
        keys, values = self.cache.update(key, value, layer, self.read_index, self.write_index)
        return keys.transpose(0, 1)[None], values.transpose(0, 1)[None]


def packed_batch(arguments: dict[str, Any], sequences: int) -> PackedBatch:
    """A step as continuous batching prepares it for flash attention.

    Args:
        arguments: Of the model's forward pass, as transformers would call it.
        sequences: How many there are.

    Returns:
        The step, with lengths as Python integers.

    Raises:
        UnsupportedError: Position ids that do not count each sequence's own tokens.
    """
    starts = arguments["cu_seq_lens_k"]
    if isinstance(starts, Tensor):  # as in older releases, where all layers are of one kind
        starts = {_FULL: starts, _SLIDING: starts}
    queries = _slices(arguments["cu_seq_lens_q"], sequences)
    ids = arguments["position_ids"][0].tolist()
    for new in queries:
        if ids[new] != list(range(ids[new.start], ids[new.start] + new.stop - new.start)):
            raise UnsupportedError(
                "generate_batch: `position_ids` must count each sequence's tokens from 0, got "
                "others. Use generate with this release of transformers."
            )
    return PackedBatch(
        cache=arguments["cache"],
        write_index=arguments["write_index"],
        read_index=arguments["read_index"],
        queries=queries,
        positions=[ids[new.start] for new in queries],
        keys={kind: _slices(each, sequences) for kind, each in starts.items()},
    )


def packed_batch_of(mask: Tensor | None) -> PackedBatch | None:
    """The batch that `PackedBatch.mask` went out with, if this is such a mask."""
    return getattr(mask, "layercast_packed", None)


@functools.cache
def _takes_options(update: Any) -> bool:
    return "kwargs" in inspect.signature(update).parameters


def _slices(starts: Tensor, sequences: int) -> list[slice]:
    ends = starts[: sequences + 1].tolist()
    return [slice(a, b) for a, b in pairwise(ends)]
