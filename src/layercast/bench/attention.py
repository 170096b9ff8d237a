"""`attention` at decode and prefill, against the one that transformers calls by default."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from layercast import ops
from layercast.bench.caches import Rotation
from layercast.bench.case import Case, Facts, Prepared, Variant
from layercast.bench.checks import relative_errors, require_bits
from layercast.bench.inputs import generator, spread
from layercast.bench.workspace import Workspace
from layercast.kernels import reference

DISTRIBUTION = "q, k, v ~ N(0, 1)"

_DEFINED_QUERIES = 4


def prepare_attention(case: Case, workspace: Workspace) -> Prepared:
    """Make queries, and copies of keys and values past the last-level cache.

    All sequences have one length, so transformers passes no mask: its fastest way.

    Args:
        case: Sizes Hq, Hkv, D, Tq (the last positions of each sequence, its queries) and Tk (its
            positions); rows is B * Tq.
        workspace: Gives the copies their memory.
    """
    Hq, Hkv, D = case.size("Hq"), case.size("Hkv"), case.size("D")
    Tq, Tk = case.size("Tq"), case.size("Tk")
    B = case.rows // Tq
    random = generator()
    q = torch.randn(B, Hq, Tq, D, generator=random)
    k = torch.randn(B, Hkv, Tk, D, generator=random)
    v = torch.randn(B, Hkv, Tk, D, generator=random)
    key_positions = torch.arange(Tk).expand(B, Tk).contiguous()
    query_positions = key_positions[:, Tk - Tq :].contiguous()
    full, half = workspace.rotate(k, v), workspace.rotate(k.bfloat16(), v.bfloat16())
    q_bf16 = q.bfloat16()

    def layercast() -> Tensor:
        keys, values = full.next()
        return ops.attention(
            q,
            keys,
            values,
            query_positions=query_positions,
            key_positions=key_positions,
            scale=D**-0.5,
        )

    groups = Hq // Hkv
    calls: dict[Variant, Callable[[], Tensor]] = {
        Variant.LAYERCAST: layercast,
        Variant.STOCK_FP32: lambda: _stock(q, full, groups),
        Variant.STOCK_BF16: lambda: _stock(q_bf16, half, groups),
    }
    calls = {variant: calls[variant] for variant in case.variants}
    return Prepared(
        turns=workspace.turns(calls),
        check=lambda: _check(q, k, v, query_positions, {n: call() for n, call in calls.items()}),
        facts={
            "cache_copies": full.copies,
            "cache_bytes_between_uses": full.total_bytes,
            "past_last_level_cache": full.total_bytes >= workspace.past_bytes,
        },
    )


def _stock(q: Tensor, cache: Rotation, groups: int) -> Tensor:
    """Call what transformers' models call, with what it reads of the calling module."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    module = SimpleNamespace(num_key_value_groups=groups, is_causal=True)
    keys, values = cache.next()
    output: Tensor = sdpa_attention_forward(
        module, q, keys, values, None, scaling=q.shape[-1] ** -0.5
    )[0]
    return output


def _check(
    q: Tensor, k: Tensor, v: Tensor, query_positions: Tensor, results: dict[Variant, Tensor]
) -> Facts:
    Tk = k.shape[2]
    chosen = spread(q.shape[2], _DEFINED_QUERIES)
    # One sequence and one group of heads that share keys: the definition is slow.
    group = q.shape[1] // k.shape[1]
    defined = reference.attention(
        q[-1:, -group:, chosen],
        k[-1:, -1:],
        v[-1:, -1:],
        query_positions[-1:, chosen],
        torch.arange(Tk)[None],
        q.shape[-1] ** -0.5,
        None,
        None,
    )
    ours = results[Variant.LAYERCAST][-1:, chosen, -group:]
    compared = require_bits("attention", ours, defined)
    causal = query_positions[0][:, None] >= torch.arange(Tk)
    exact = F.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), attn_mask=causal, enable_gqa=True
    ).transpose(1, 2)
    return {
        "values_equal_to_definition": compared,
        "values_compared_to_float64": exact.numel(),
        "relative_error": relative_errors(results, exact),
    }
