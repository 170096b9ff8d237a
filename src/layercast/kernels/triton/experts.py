"""`route` and `experts` by Triton.

Tokens are grouped by expert on the device: each group is cut into tiles of rows, so that an
expert's weights are read once a tile, and no number travels to the host.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from layercast.kernels.rows import rows_of, with_unit_stride
from layercast.kernels.triton import contract
from layercast.kernels.triton.gated import gelu_mul, gelu_tanh_mul, silu_mul
from layercast.kernels.triton.launch import OPTIONS
from layercast.kernels.triton.linear import shard_range, shard_tile
from layercast.kernels.triton.selection import topk
from layercast.kernels.triton.softmax import softmax
from layercast.kernels.triton.tensors import alignment

TILE = 16
COLUMNS = 64
BLOCK = 1024
_GATED = {"silu": silu_mul, "gelu": gelu_mul, "gelu_tanh": gelu_tanh_mul}


@triton.jit
def renormalize_kernel(weights, rows, k, BLOCK: tl.constexpr):
    """Each row of `weights` divided by its sum, a chain in order from +0; in place."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for j in tl.range(0, k):
        total = total + tl.load(weights + row * k + j, mask=row < rows, other=0.0)
    for j in tl.range(0, k):
        at = weights + row * k + j
        value = tl.div_rn(tl.load(at, mask=row < rows, other=1.0), total)
        tl.store(at, contract.canonical(value), mask=row < rows)


def route(router_logits: Tensor, top_k: int, renormalize: bool) -> tuple[Tensor, Tensor]:
    """See `layercast.ops.route`."""
    weights, indices = topk(softmax(router_logits), top_k)
    rows = rows_of(weights)
    if renormalize and rows:
        renormalize_kernel[(triton.cdiv(rows, 128),)](weights, rows, top_k, 128, **OPTIONS)
    return weights, indices


@triton.jit
def grouped_linear_kernel(
    x,
    weight,
    y,
    pairs,
    experts,
    begins,
    ends,
    N,
    K,
    top_k,
    stride_e,
    stride_n,
    PER_PAIR: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    ALIGN: tl.constexpr,
):
    """y[pair] = linear(x[row of the pair], weight[its expert]); grid (columns, tiles of rows)."""
    tile = tl.program_id(1)
    begin_row, end_row = tl.load(begins + tile), tl.load(ends + tile)
    if begin_row < end_row:
        expert = tl.load(experts + tile).to(tl.int64)
        m = begin_row + tl.arange(0, BM)
        pair = tl.load(pairs + tl.minimum(m, end_row - 1))
        n = tl.program_id(0) * BN + tl.arange(0, BN)
        source = pair if PER_PAIR else pair // top_k
        x_rows = x + source * K
        w_rows = weight + expert * stride_e + tl.minimum(n, N - 1).to(tl.int64) * stride_n
        total = tl.zeros((BM, BN), tl.float32)
        for i in tl.range(0, 2, num_stages=1):
            quad = tl.zeros((BM, BN), tl.float32)
            for j in tl.range(0, 2, num_stages=1):
                both = tl.zeros((BM, BN), tl.float32)
                for l in tl.range(0, 2, num_stages=1):  # noqa: E741
                    begin, end = shard_range(i * 4 + j * 2 + l, K, 0, ALIGN)
                    shard = shard_tile(x_rows, w_rows, 1, begin, end, BM, BN, BK, 3)
                    both = tl.fma(shard, 1.0, both)
                quad = quad + both
            total = total + quad
        inside = (m < end_row)[:, None] & (n < N)[None, :]
        tl.store(y + pair[:, None] * N + n[None, :], contract.canonical(total), mask=inside)


@triton.jit
def expert_sum_kernel(out, indices, weights, y, E, n, top_k, BLOCK: tl.constexpr):
    """Y = y + w_e * out_e by ascending expert from +0; NaN where an index has no meaning."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    last = tl.load(indices + row * top_k) * 0 - 1
    wrong = 0
    for _ in tl.range(0, top_k):
        # The lowest expert above the last one.
        chosen = last * 0 + 2**62
        pair = last * 0
        equal = 0
        for j in tl.range(0, top_k):
            e = tl.load(indices + row * top_k + j)
            equal = tl.where(e == chosen, 1, equal)
            closer = (e > last) & (e < chosen)
            equal = tl.where(closer, 0, equal)
            pair = tl.where(closer, row * top_k + j, pair)
            chosen = tl.where(closer, e, chosen)
        wrong = tl.where((equal != 0) | (chosen >= E) | (chosen < 0), 1, wrong)
        value = tl.load(out + pair * n + at, mask=at < n, other=0.0)
        total = total + (tl.load(weights + pair) * value)
        last = chosen
    total = tl.where(tl.zeros_like(at) + wrong != 0, float("nan"), total)
    tl.store(y + row * n + at, contract.canonical(total), mask=at < n)


def _tiles(indices: Tensor, E: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs by expert, and the expert, first and last pair of each tile of 16; integers only."""
    flat = indices.reshape(-1)
    inside = (flat >= 0) & (flat < E)
    # Pairs whose expert does not exist go last, into no tile.
    flat = torch.where(inside, flat, torch.full_like(flat, E))
    by_expert, pairs = torch.sort(flat, stable=True)
    numbers = torch.arange(E + 1, device=flat.device)
    begins = torch.searchsorted(by_expert, numbers)
    counts = begins[1:] - begins[:-1]
    tiles = (counts + (TILE - 1)) // TILE
    last = tiles.cumsum(0)
    limit = min(flat.numel(), E) + flat.numel() // TILE
    tile = torch.arange(limit, device=flat.device)
    expert = torch.searchsorted(last, tile, right=True).clamp(max=E - 1)
    within = tile - (last - tiles)[expert]
    first = begins[expert] + within * TILE
    end = torch.minimum(first + TILE, begins[expert + 1])
    return pairs, expert, first, torch.where(tile < last[-1], end, first)


def _grouped_linear(
    x: Tensor, weight: Tensor, groups: tuple[Tensor, Tensor, Tensor, Tensor], top_k: int, count: int
) -> Tensor:
    """Rows of `x`, one a token (top_k > 0) or one a pair (0), each times its expert's weight."""
    _, N, K = weight.shape
    y = x.new_empty((count, N))
    grid = (triton.cdiv(N, COLUMNS), groups[1].numel())
    grouped_linear_kernel[grid](
        x,
        weight,
        y,
        *groups,
        N,
        K,
        max(top_k, 1),
        weight.stride(0),
        weight.stride(1),
        PER_PAIR=top_k == 0,
        BM=TILE,
        BN=COLUMNS,
        BK=16,
        ALIGN=alignment(K),
        num_warps=4,
        **OPTIONS,
    )
    return y


def experts(
    x: Tensor, gate_up: Tensor, down: Tensor, indices: Tensor, weights: Tensor, activation: str
) -> Tensor:
    """See `layercast.ops.experts`. A token whose indices have no meaning is NaN."""
    x, indices, weights = x.contiguous(), indices.contiguous(), weights.contiguous()
    gate_up, down = with_unit_stride(gate_up), with_unit_stride(down)
    E, H, I = down.shape  # noqa: E741  (the literature's names)
    top_k, count = indices.shape[-1], indices.numel()
    y = torch.empty_like(x)
    if y.numel() == 0:
        return y
    groups = _tiles(indices, E)
    if I:
        both = _grouped_linear(x, gate_up, groups, top_k, count)
        out = _grouped_linear(_GATED[activation](both, None), down, groups, 0, count)
    else:
        out = torch.zeros((count, H), dtype=x.dtype, device=x.device)
    expert_sum_kernel[(rows_of(x), triton.cdiv(H, BLOCK))](
        out, indices, weights, y, E, H, top_k, BLOCK, **OPTIONS
    )
    return y
