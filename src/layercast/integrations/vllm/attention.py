"""Attention over vLLM's paged cache by `layercast.ops.paged_attention`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm.v1.attention.backend import (
    AttentionBackend,
    AttentionImpl,
    AttentionMetadataBuilder,
    CommonAttentionMetadata,
)

from layercast import ops
from layercast.integrations.transformers.guard import check_subnormals


@dataclass
class PackedBatch:
    """One step's sequences, side by side.

    Attributes:
        tokens: In all of them; further rows of the queries are padding.
        block_table: int64, shape (B, P).
        sequence_lengths: int64, shape (B,), the new tokens included.
        cu_seqlens_q: int64, shape (B + 1,).
        pages: int64, shape (T,): where each new token's key and value go.
        slots: int64, shape (T,): and where in that page.
    """

    tokens: int
    block_table: Tensor
    sequence_lengths: Tensor
    cu_seqlens_q: Tensor
    pages: Tensor
    slots: Tensor


class PackedBatchBuilder(AttentionMetadataBuilder[PackedBatch]):  # type: ignore[misc]
    """Makes a `PackedBatch` of what vLLM tells of a step."""

    def __init__(
        self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device
    ) -> None:
        """See vLLM."""
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        self._page_size = kv_cache_spec.block_size
        config = vllm_config.model_config.hf_text_config
        self._widest = max(config.hidden_size, getattr(config, "intermediate_size", None) or 0)

    def build(
        self,
        common_prefix_len: int,
        common_attn_metadata: CommonAttentionMetadata,
        fast_build: bool = False,
    ) -> PackedBatch:
        """Once a step for all layers that share a page table.

        Raises:
            GuaranteeError: The processor flushes subnormal numbers to zero.
        """
        common = common_attn_metadata
        tokens = common.num_actual_tokens
        check_subnormals(tokens * self._widest)
        slot_mapping = common.slot_mapping[:tokens].long()
        return PackedBatch(
            tokens=tokens,
            block_table=common.block_table_tensor.long(),
            sequence_lengths=common.seq_lens.long(),
            cu_seqlens_q=common.query_start_loc.long(),
            pages=slot_mapping // self._page_size,
            slots=slot_mapping % self._page_size,
        )


class PagedAttention(AttentionImpl[PackedBatch]):  # type: ignore[misc]
    """The arithmetic of one layer."""

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int | None = None,
        alibi_slopes: list[float] | None = None,
        sliding_window: int | None = None,
        kv_cache_dtype: str = "auto",
        logits_soft_cap: float | None = None,
        attn_type: str = "decoder",
        kv_sharing_target_layer_name: str | None = None,
    ) -> None:
        """See vLLM; what else a layer may ask for was refused by `settings.attention_obstacle`."""
        self.num_heads = num_heads
        self.head_size = head_size
        self.scale = scale
        self.num_kv_heads = num_kv_heads or num_heads
        self.kv_cache_dtype = kv_cache_dtype
        self.attn_type = attn_type
        self.window = sliding_window
        self.softcap = logits_soft_cap

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: PackedBatch | None,
        output: Tensor,
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """Put the new keys and values into their pages, and attend to all of each sequence.

        A cache of 16 bits rounds them before they are used, in this call too.

        Args:
            layer: Unused.
            query: Float32, shape (T, Hq, D).
            key: Float32, shape (T, Hkv, D).
            value: As `key`.
            kv_cache: Shape (pages, Hkv, page size, 2 D), in any order of memory.
            attn_metadata: None in a run that only measures memory.
            output: Filled; shape (T, Hq, D).
            output_scale: None.
            output_block_scale: None.

        Returns:
            `output`.
        """
        if attn_metadata is None:
            return output.zero_()
        tokens = attn_metadata.tokens
        by_slot = kv_cache.transpose(1, 2)
        new = torch.cat((key[:tokens], value[:tokens]), dim=-1)
        by_slot[attn_metadata.pages, attn_metadata.slots] = new.to(kv_cache.dtype)
        k_cache = by_slot.narrow(-1, 0, self.head_size)
        v_cache = by_slot.narrow(-1, self.head_size, self.head_size)
        output[:tokens] = ops.paged_attention(
            query[:tokens],
            k_cache,
            v_cache,
            block_table=attn_metadata.block_table,
            sequence_lengths=attn_metadata.sequence_lengths,
            cu_seqlens_q=attn_metadata.cu_seqlens_q,
            scale=self.scale,
            window=self.window,
            softcap=self.softcap,
        )
        return output


class LayerCastAttentionBackend(AttentionBackend):  # type: ignore[misc]
    """Which classes vLLM is to use, and what they can do."""

    forward_includes_kv_cache_update = True
    supported_dtypes = (torch.float32,)
    supported_kv_cache_dtypes = ("auto", "float16", "bfloat16")

    @staticmethod
    def get_name() -> str:
        """Vacant: vLLM has no name for it, and asks for one of its own."""
        return "CUSTOM"

    @staticmethod
    def get_impl_cls() -> type[PagedAttention]:
        """The arithmetic."""
        return PagedAttention

    @staticmethod
    def get_builder_cls() -> type[PackedBatchBuilder]:
        """What prepares a step."""
        return PackedBatchBuilder

    @classmethod
    def supports_sliding_window(cls) -> bool:
        """Yes."""
        return True
