"""`layercast.ops.attention` against torch's scaled_dot_product_attention, heads of a 7 B model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gpu_timing import captured, medians_in_turns

from layercast import ops

HEADS, KEY_HEADS, HEAD_DIM = 28, 4, 128
CASES = (  # sequences, queries of each, keys of each
    (1, 1, 1024),
    (1, 1, 16384),
    (8, 1, 4096),
    (32, 1, 4096),
    (1, 2048, 2048),
)


def measure(B, Tq, Tk):
    """Contender to microseconds a call; the queries are the last positions."""
    q = torch.randn(B, HEADS, Tq, HEAD_DIM, device="cuda")
    k, v = (torch.randn(B, KEY_HEADS, Tk, HEAD_DIM, device="cuda") for _ in range(2))
    positions = torch.arange(Tk, device="cuda").expand(B, -1).contiguous()
    queries = positions[:, Tk - Tq :].contiguous()
    q16, k16, v16 = q.bfloat16(), k.bfloat16(), v.bfloat16()
    scale = HEAD_DIM**-0.5

    def ours(k, v):
        return ops.attention(q, k, v, query_positions=queries, key_positions=positions, scale=scale)

    def stock(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=Tq > 1, enable_gqa=True)

    calls = {
        "layercast": lambda _: ours(k, v),
        "layercast_bf16_keys": lambda _: ours(k16, v16),
        "sdpa_bf16": lambda _: stock(q16, k16, v16),
        "sdpa_fp32": lambda _: stock(q, k, v),
    }
    graphs = {name: captured(call) for name, call in calls.items()}
    return medians_in_turns({name: graph.replay for name, graph in graphs.items()})


def run(record):
    """Every case."""
    for B, Tq, Tk in CASES:
        case = {"operation": "attention", "sequences": B, "queries": Tq, "keys": Tk}
        record.take(case, lambda B=B, Tq=Tq, Tk=Tk: measure(B, Tq, Tk))
