"""Operations on rows of activations: norms, rotary, activation, and what follows the logits.

Their inputs are what the operation before has just written, so they are left in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from layercast import ops
from layercast.bench.case import Case, Facts, Prepared, Variant
from layercast.bench.checks import relative_errors, require_bits
from layercast.bench.inputs import generator, spread
from layercast.bench.workspace import Workspace
from layercast.kernels import reference

DISTRIBUTION = "x ~ N(0, 1)"
EPS = 1e-6

_DEFINED_ROWS = 2

Call = Callable[[], Tensor]


@dataclass(frozen=True)
class RowOperation:
    """One operation's calls; `defined` and `exact` take the rows they compute."""

    calls: dict[Variant, Call]
    defined: Callable[[Tensor], Tensor]
    exact: Callable[[], Tensor] | None


def prepare_rows(case: Case, workspace: Workspace) -> Prepared:
    """Make the rows of a case.

    Args:
        case: Size n, the length of a row (for rotary H and D, for rms_norm the hidden size).
        workspace: Gives the turns.
    """
    operation = _MAKERS[case.operation](case)
    calls = {variant: operation.calls[variant] for variant in case.variants}

    def check() -> Facts:
        results = {variant: call() for variant, call in calls.items()}
        rows = spread(case.rows, _DEFINED_ROWS)
        ours = results[Variant.LAYERCAST]
        facts: dict[str, object] = {
            "values_equal_to_definition": require_bits(
                case.operation, ours[rows], operation.defined(rows)
            )
        }
        if operation.exact is not None:
            exact = operation.exact()
            facts["values_compared_to_float64"] = exact.numel()
            facts["relative_error"] = relative_errors(results, exact)
        return facts

    return Prepared(turns=workspace.turns(calls), check=check, facts={"inputs": "in the cache"})


def _rms_norm(case: Case) -> RowOperation:
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

    hidden = case.size("n")
    x = torch.randn(case.rows, hidden, generator=generator())
    weight = torch.randn(hidden, generator=generator()).bfloat16()
    stock = Qwen2RMSNorm(hidden, eps=EPS)
    stock.weight = torch.nn.Parameter(weight.float())
    stock_bf16 = Qwen2RMSNorm(hidden, eps=EPS)
    stock_bf16.weight = torch.nn.Parameter(weight)
    x_bf16 = x.bfloat16()

    def exact() -> Tensor:
        rows = x.double()
        return rows / (rows.square().mean(-1, keepdim=True) + EPS).sqrt() * weight.double()

    return RowOperation(
        {
            Variant.LAYERCAST: lambda: ops.rms_norm(x, weight, eps=EPS),
            Variant.STOCK_FP32: lambda: stock(x),
            Variant.STOCK_BF16: lambda: stock_bf16(x_bf16),
        },
        lambda rows: reference.rms_norm(x[rows], weight, EPS, False),
        exact,
    )


def _rotary(case: Case) -> RowOperation:
    from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

    H, D = case.size("H"), case.size("D")
    random = generator()
    # As at decode: each sequence has one query, at a position of its own.
    q = torch.randn(case.rows, H, 1, D, generator=random)
    k = torch.randn(case.rows, case.size("Hkv"), 1, D, generator=random)
    positions = torch.arange(case.rows)[:, None] + 100
    cos, sin = ops.rotary_table(positions, head_dim=D, base=1e6)

    def exact() -> Tensor:
        rotated: Tensor = apply_rotary_pos_emb(q.double(), k.double(), cos.double(), sin.double())[
            0
        ]
        return rotated

    return RowOperation(
        {
            Variant.LAYERCAST: lambda: ops.rotary(q, k, cos, sin)[0],
            Variant.STOCK_FP32: lambda: apply_rotary_pos_emb(q, k, cos, sin)[0],
        },
        lambda rows: reference.rotary(q[rows], k[rows], cos[rows], sin[rows])[0],
        exact,
    )


def _silu(case: Case) -> RowOperation:
    x = torch.randn(case.rows, case.size("n"), generator=generator())
    x_bf16 = x.bfloat16()
    return RowOperation(
        {
            Variant.LAYERCAST: lambda: ops.silu(x),
            Variant.STOCK_FP32: lambda: F.silu(x),
            Variant.STOCK_BF16: lambda: F.silu(x_bf16),
        },
        lambda rows: reference.silu(x[rows]),
        lambda: F.silu(x.double()),
    )


def _log_softmax(case: Case) -> RowOperation:
    x = torch.randn(case.rows, case.size("n"), generator=generator())
    return RowOperation(
        {
            Variant.LAYERCAST: lambda: ops.log_softmax(x),
            Variant.STOCK_FP32: lambda: torch.log_softmax(x, dim=-1),
        },
        lambda rows: reference.log_softmax(x[rows]),
        lambda: torch.log_softmax(x.double(), dim=-1),
    )


def _argmax(case: Case) -> RowOperation:
    x = torch.randn(case.rows, case.size("n"), generator=generator())
    return RowOperation(
        {
            Variant.LAYERCAST: lambda: ops.argmax(x),
            Variant.STOCK_FP32: lambda: torch.argmax(x, dim=-1),
        },
        lambda rows: reference.argmax(x[rows]),
        None,
    )


_MAKERS: dict[str, Callable[[Case], RowOperation]] = {
    "rms_norm": _rms_norm,
    "rotary": _rotary,
    "silu": _silu,
    "log_softmax": _log_softmax,
    "argmax": _argmax,
}
