"""`layercast.ops.linear` against cuBLAS, at the shapes of a model of 7 B parameters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gpu_timing import captured, medians_in_turns

from layercast import ops

SHAPES = ((3584, 18944), (18944, 3584), (4608, 3584), (3584, 3584), (152_064, 3584))
"""(out_features, in_features), the head last."""
ROWS = (1, 8, 4, 32, 2048)
CACHE_BYTES = 200 * 2**20
"""Copies of a weight exceed together what an L2 cache holds."""


def contenders(x, weights):
    """Name to a function of the number of the weight's copy."""
    x16 = x.bfloat16()
    wide = [weight.float() for weight in weights]
    return {
        "layercast": lambda i: ops.linear(x, weights[i]),
        "cublas_bf16": lambda i: F.linear(x16, weights[i]),
        "cublas_fp32_ieee": lambda i: F.linear(x, wide[i]),
        "upcast_then_fp32": lambda i: F.linear(x, weights[i].float()),
    }


def measure(N, K, M):
    """Contender to microseconds a call."""
    many = M > 64  # bound by arithmetic: one copy does, and fewer repeats
    copies = 1 if many else max(2, -(-CACHE_BYTES // (2 * N * K)))
    weights = [torch.randn(N, K, device="cuda").mul_(K**-0.5).bfloat16() for _ in range(copies)]
    x = torch.randn(M, K, device="cuda")
    graphs = {name: captured(f, copies) for name, f in contenders(x, weights).items()}
    medians = medians_in_turns(
        {name: graph.replay for name, graph in graphs.items()}, repeats=1 if many else 3
    )
    return {name: value / copies for name, value in medians.items()}


def run(record):
    """Every case, those asked for most first."""
    for M in ROWS:
        for N, K in SHAPES:
            case = {"operation": "linear", "rows": M, "out_features": N, "in_features": K}
            record.take(case, lambda N=N, K=K, M=M: measure(N, K, M))
