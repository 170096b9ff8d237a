"""`linear` at the shapes of a transformer's feed-forward layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from layercast import ops
from layercast.bench.case import Case, Facts, Prepared, Variant
from layercast.bench.checks import (
    linear_error_bound,
    relative_errors,
    require_bits,
    require_error_bound,
)
from layercast.bench.inputs import generator, spread
from layercast.bench.workspace import Workspace
from layercast.kernels import reference
from layercast.kernels.cpu.fma_rate import fma_rate

DISTRIBUTION = "x ~ N(0, 1); weight ~ N(0, 1/K), rounded to its dtype"

# How much of the result is compared: the definition is slow, float64 takes memory.
_DEFINED_ROWS, _DEFINED_COLUMNS, _EXACT_COLUMNS = 4, 48, 1024


def prepare_linear(case: Case, workspace: Workspace) -> Prepared:
    """Make activations, and copies of the weights past the last-level cache.

    Args:
        case: Sizes N and K.
        workspace: Gives the copies their memory.
    """
    M, N, K = case.rows, case.size("N"), case.size("K")
    random = generator()
    x = torch.randn(M, K, generator=random)
    weight = (torch.randn(N, K, generator=random) / K**0.5).bfloat16()
    x_bf16 = x.bfloat16()
    half = workspace.rotate(weight)
    full = workspace.rotate(weight.float()) if Variant.STOCK_FP32 in case.variants else None
    fma_steps = max(1, M * N * K // fma_rate(1))
    calls: dict[Variant, Callable[[], Tensor]] = {
        Variant.LAYERCAST: lambda: ops.linear(x, half.next()[0]),
        Variant.STOCK_BF16: lambda: F.linear(x_bf16, half.next()[0]),
        Variant.PUBLISHED: lambda: F.linear(x, half.next()[0].float()),
    }
    if full is not None:
        calls[Variant.STOCK_FP32] = lambda: F.linear(x, full.next()[0])
    calls = {variant: calls[variant] for variant in case.variants if variant in calls}
    turns = workspace.turns(calls)
    if Variant.FMA_PEAK in case.variants:
        turns |= workspace.turns({Variant.FMA_PEAK: lambda: fma_rate(fma_steps)})
    facts = {
        "weight_copies": half.copies,
        "weight_bytes_between_uses": half.total_bytes,
        "past_last_level_cache": half.total_bytes >= workspace.past_bytes,
    }
    return Prepared(
        turns=turns,
        check=lambda: _check(x, weight, {name: call() for name, call in calls.items()}),
        facts=facts,
        fmas={Variant.LAYERCAST: M * N * K, Variant.FMA_PEAK: fma_steps * fma_rate(1)},
    )


def _check(x: Tensor, weight: Tensor, results: dict[Variant, Tensor]) -> Facts:
    rows, columns = spread(len(x), _DEFINED_ROWS), spread(len(weight), _DEFINED_COLUMNS)
    ours = results[Variant.LAYERCAST]
    compared = require_bits(
        "linear", ours[rows][:, columns], reference.linear(x[rows], weight[columns], None)
    )
    wide = spread(len(weight), _EXACT_COLUMNS)
    exact = x.double() @ weight[wide].double().T
    require_error_bound("linear", ours[:, wide], exact, linear_error_bound(x, weight[wide]))
    return {
        "values_equal_to_definition": compared,
        "values_compared_to_float64": exact.numel(),
        "relative_error": relative_errors(
            {name: result[:, wide] for name, result in results.items()}, exact
        ),
    }
