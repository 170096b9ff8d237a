"""Attention over transformers' paged cache, where its keys and values lie."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layercast import ops
from layercast.errors import UnsupportedError

_FULL, _SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class KeySlots:
    """Where the keys of each sequence lie, as `ops.paged_attention` takes it: pages of one slot.

    Attributes:
        in_pool: Whether in the pool once the new ones are written; else among those that the
            cache returns, which has dropped older ones that some query sees.
        block_table: Slot of each key in order, shape (B, keys of the longest).
        first_positions: Position of each sequence's first key, shape (B,).
        window: Keys that a query sees, or None for all: then every sequence is held whole.
    """

    in_pool: bool
    block_table: Tensor
    first_positions: Tensor
    window: int | None


@dataclass(frozen=True)
class PackedBatch:
    """One step of continuous batching: tokens of several sequences in one row.

    Tensors lie where the tokens do, and nothing of them is read before the step's end: what
    decides how a step is computed is known to the scheduler.

    Attributes:
        cache: The paged cache of transformers.
        write_index: One tensor for each group of layers: slots of the new keys.
        read_index: One tensor for each group of layers: slots of all keys, those of the new ones
            being of no use with a sliding window; empty where no sequence has any in the cache.
        scheduled: New tokens of each sequence, and all its tokens with these.
        positions: Of the new tokens in their sequences, int64, shape (T,).
        queries: Where each sequence's new tokens begin, then T; int64, shape (B + 1,).
        keys: Kind of layer to where each sequence's keys begin among those the cache returns, then
            their number, likewise.
    """

    cache: Any
    write_index: list[Tensor]
    read_index: list[Tensor]
    scheduled: list[tuple[int, int]]
    positions: Tensor
    queries: Tensor
    keys: dict[str, Tensor]
    _slots: dict[int, KeySlots] = field(default_factory=dict)

    @functools.cached_property
    def lengths(self) -> Tensor:
        """Tokens of each sequence, new ones included; int64, shape (B,)."""
        begins = self.queries[:-1].clamp(max=self.positions.shape[0] - 1)
        return self.positions[begins] + self.queries.diff()

    def check(self) -> None:
        """Refuse a step that was computed of other tensors than the scheduler says; waits for it.

        Raises:
            UnsupportedError: Position ids that do not count each sequence's own tokens from 0, or
                keys that do not begin with its first.
        """
        T = self.positions.shape[0]
        column = torch.arange(T, device=self.positions.device)
        sequence = torch.searchsorted(self.queries[1:], column, right=True)
        begin = self.queries[sequence.clamp(max=len(self.scheduled) - 1)]
        counted = self.positions[begin] + column - begin
        found = [self.queries[-1:], (self.positions != counted).sum()[None], self.lengths]
        expected = [T, 0, *(length for _, length in self.scheduled)]
        for slots in self._slots.values():
            if slots.window is None:
                found.append(slots.first_positions)
                expected += [0] * len(self.scheduled)
        if torch.cat(found).tolist() != expected:
            raise UnsupportedError(
                "generate_batch: `position_ids` must count each sequence's tokens from 0, got "
                "others. Use generate with this release of transformers."
            )

    def mask(self) -> Tensor:
        """What is passed as attention mask: positions of the queries, and this batch with them.

        Returns:
            int64, shape (1, 1, 1, T + 1), which models hand through untouched.
        """
        packed = F.pad(self.positions, (0, 1))[None, None, None]
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
            key: In the dtype of the cache, shape (1, Hkv, T, D), packed.
            value: As `key`.
            scale: Factor of the scores.
            softcap: Bound of the scores, or None.

        Returns:
            Float32, shape (1, T, Hq, D).
        """
        layer: Any = module.layer_idx
        group, kind, window = self._group(layer)
        if group not in self._slots:
            self._slots[group] = self._find_slots(group, kind, window)
        slots = self._slots[group]
        if slots.in_pool:
            self._update(layer, key, value, [index[:0] for index in self.read_index])
            keys, values = self._pool(layer)
        else:
            updated = self._update(layer, key, value, self.read_index)
            keys, values = (x[0].transpose(0, 1) for x in updated)
        return ops.paged_attention(
            query[0].transpose(0, 1),
            keys[:, None],
            values[:, None],
            block_table=slots.block_table,
            sequence_lengths=self.lengths,
            cu_seqlens_q=self.queries,
            first_positions=slots.first_positions,
            max_queries=max(new for new, _ in self.scheduled),
            scale=scale,
            window=window,
            softcap=softcap,
        )[None]

    def window(self, module: nn.Module) -> int | None:
        """How many keys a query of this layer sees, itself included; None for all."""
        layer: Any = module.layer_idx
        return self._group(layer)[2]

    def _find_slots(self, group: int, kind: str, window: int | None) -> KeySlots:
        # A new key takes the slot of the one that has just left the window of its own query. With
        # more queries than that, earlier ones still see it.
        in_pool = window is None or all(end <= window or new == 1 for new, end in self.scheduled)
        begins = self.keys[kind]
        held = begins.diff()
        longest = max(end for _, end in self.scheduled)
        if window is not None:  # what a window's cache returns: the keys before, and all new ones
            longest = min(longest, window + max(new for new, _ in self.scheduled))
        ordinal = torch.arange(longest, device=begins.device)
        table = begins[:-1, None] + ordinal
        if in_pool:
            written, read = self.write_index[group], self.read_index[group]
            before = held - self.queries.diff()
            # Entries past a sequence's end are of no use, wherever they point.
            at = (self.queries[:-1] - before)[:, None] + ordinal
            new = written[at.clamp(0, written.shape[0] - 1)]
            if read.shape[0]:
                old = read[table.clamp(max=read.shape[0] - 1)]
                new = torch.where(ordinal < before[:, None], old, new)
            table = new
        return KeySlots(in_pool, table.to(torch.int64), self.lengths - held, window)

    def _group(self, layer: int) -> tuple[int, str, int | None]:
        """Index and kind of the layers that share slots with this one, and their window."""
        allocators = getattr(self.cache, "layer_to_allocator", None)
        if allocators is None:  # as in older releases of transformers
            index, window = (
                self.cache.layer_index_to_group_indices[layer][0],
                self.cache.sliding_windows[layer],
            )
            return (index, _FULL, None) if window == 1 else (index, _SLIDING, window)
        kind = allocators[layer].layer_type
        window = allocators[layer].sliding_window if kind == _SLIDING else None
        return allocators[layer].index, kind, window

    def _pool(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the layer by slot, each of shape (slots, Hkv, D)."""
        allocators = getattr(self.cache, "layer_to_allocator", None)
        if allocators is None:  # as in older releases of transformers
            place = self.cache.layer_index_to_group_indices[layer][1]
            return self.cache.key_cache[place], self.cache.value_cache[place]
        # Views of one tensor that begin apart: the values' ends first.
        keys, values = allocators[layer]._kv_token_views[layer]
        slots = min(len(keys), len(values))
        return keys[:slots], values[:slots]

    def _update(
        self, layer: int, key: Tensor, value: Tensor, read_index: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Write the new keys and values, and return those to be read, (1, Hkv, rows, D) each."""
        if _takes_options(self.cache.update.__func__):
            unused = dict.fromkeys(self.keys, key.new_empty(0, dtype=torch.int32))
            options = {
                "cu_seq_lens_k": unused,
                "max_length_k": dict.fromkeys(self.keys, 0),
                "read_index": read_index,
                "write_index": self.write_index,
            }
            updated: tuple[Tensor, Tensor] = self.cache.update(key, value, layer, options)
            return updated
        keys, values = self.cache.update(key, value, layer, read_index, self.write_index)
        return keys.transpose(0, 1)[None], values.transpose(0, 1)[None]


def packed_batch(arguments: dict[str, Any], scheduled: Sequence[tuple[int, int]]) -> PackedBatch:
    """A step as continuous batching prepares it for flash attention.

    Args:
        arguments: Of the model's forward pass, as transformers would call it.
        scheduled: New tokens of each sequence, and all its tokens with these.

    Returns:
        The step. `check` tells, at its end, whether the two agree.
    """
    starts = arguments["cu_seq_lens_k"]
    if isinstance(starts, Tensor):  # as in older releases, where all layers are of one kind
        starts = {_FULL: starts, _SLIDING: starts}
    ends = len(scheduled) + 1
    return PackedBatch(
        cache=arguments["cache"],
        write_index=arguments["write_index"],
        read_index=arguments["read_index"],
        scheduled=list(scheduled),
        positions=arguments["position_ids"][0].long(),
        queries=arguments["cu_seq_lens_q"][:ends].long(),
        keys={kind: each[:ends].long() for kind, each in starts.items()},
    )


def packed_batch_of(mask: Tensor | None) -> PackedBatch | None:
    """The batch that `PackedBatch.mask` went out with, if this is such a mask."""
    return getattr(mask, "layercast_packed", None)


@functools.cache
def _takes_options(update: Any) -> bool:
    return "kwargs" in inspect.signature(update).parameters
