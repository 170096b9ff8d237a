"""`linear` and `linear_part` by Triton.

Few rows, as in decoding: a program per shard and group of columns reads its weights once and
writes shard sums; a second kernel joins them. Many rows: a program goes through the shards of a
tile of the result, with the sums that wait for their partner in scratch memory. Tiles and splits
are chosen for speed and cannot change bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from layercast.kernels.rows import rows_of, with_unit_stride
from layercast.kernels.triton import contract
from layercast.kernels.triton.launch import OPTIONS
from layercast.kernels.triton.tensors import (
    alignment,
    multiprocessors,
)
from layercast.numerics import SHARDS

FEW_ROWS = 32
"""Most rows that the kernel of decoding takes."""

JOIN_BLOCK = 256


@triton.jit
def shard_range(shard, in_features, first_shard, ALIGN: tl.constexpr):
    """Begin and end in memory of a shard; both are known to be multiples of ALIGN."""
    origin = tl.cast(in_features, tl.int64) * first_shard // 8
    begin = tl.cast(in_features, tl.int64) * shard // 8 - origin
    end = tl.cast(in_features, tl.int64) * (shard + 1) // 8 - origin
    return (begin // ALIGN * ALIGN).to(tl.int32), (end // ALIGN * ALIGN).to(tl.int32)


@triton.jit
def shard_tile(
    x_rows,
    w_rows,
    stride_k,
    begin,
    end,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Sums over one shard of rows times columns: chains of 64 from +0, added in order from +0.

    `tl.fma(chunk, 1.0, shard)` is one addition. Written as `shard + chunk` it would be folded into
    the chain of the product before it.
    """
    shard = tl.zeros((BM, BN), tl.float32)
    chunk = tl.zeros((BM, BN), tl.float32)
    steps = (end - begin) // 64 * (64 // BK)
    for step in tl.range(0, steps, num_stages=STAGES):
        k = begin + step * BK + tl.arange(0, BK)
        a = tl.load(x_rows[:, None] + k[None, :])
        b = contract.upcast(tl.load(w_rows[None, :] + k[:, None] * stride_k))
        chunk = tl.dot(a, b, acc=chunk, input_precision="ieee")
        if step % (64 // BK) == 64 // BK - 1:
            shard = tl.fma(chunk, 1.0, shard)
            chunk = tl.zeros((BM, BN), tl.float32)
    # The shorter last chunk; zeros past its end change nothing, nor does an empty one.
    for start in tl.range(begin + steps * BK, end, BK, num_stages=1):
        k = start + tl.arange(0, BK)
        a = tl.load(x_rows[:, None] + k[None, :], mask=(k < end)[None, :], other=0.0)
        b = tl.load(w_rows[None, :] + k[:, None] * stride_k, mask=(k < end)[:, None], other=0.0)
        chunk = tl.dot(a, contract.upcast(b), acc=chunk, input_precision="ieee")
    return tl.fma(chunk, 1.0, shard)


@triton.jit(do_not_specialize=["M"])
def few_rows_kernel(
    x,
    weight,
    sums,
    M,
    N,
    in_features,
    first_shard,
    stride_m,
    stride_n,
    stride_k,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
    ALIGN: tl.constexpr,
):
    """sums[shard, m, n] of one shard and BN columns; grid (columns, shards, rows)."""
    shard = tl.program_id(1)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    m = tl.program_id(2) * BM + tl.arange(0, BM)
    # Rows and columns past the last repeat it, and are not written.
    x_rows = x + tl.minimum(m, M - 1).to(tl.int64) * stride_m
    w_rows = weight + tl.minimum(n, N - 1).to(tl.int64) * stride_n
    begin, end = shard_range(first_shard + shard, in_features, first_shard, ALIGN)
    value = shard_tile(x_rows, w_rows, stride_k, begin, end, BM, BN, BK, STAGES)
    at = (shard.to(tl.int64) * M + m[:, None]) * N + n[None, :]
    tl.store(sums + at, value, mask=(m < M)[:, None] & (n < N)[None, :])


@triton.jit
def join_tree(sums, at, step, inside, SHARDS: tl.constexpr):
    """Shard sums `sums[at + i * step]` joined: ((s0+s1)+(s2+s3)) + ((s4+s5)+(s6+s7))."""
    # From +0, as a shard sum is never -0: each level is the sum of its two halves.
    total = tl.zeros(at.shape, tl.float32)
    for i in tl.static_range(0, SHARDS, 4):
        quad = tl.zeros(at.shape, tl.float32)
        for j in tl.static_range(i, min(i + 4, SHARDS), 2):
            pair = tl.zeros(at.shape, tl.float32)
            for l in tl.static_range(j, min(j + 2, SHARDS)):  # noqa: E741
                pair = pair + tl.load(sums + at + l * step, mask=inside, other=0.0)
            quad = quad + pair
        total = total + quad
    return total


@triton.jit(do_not_specialize=["MN"])
def join_kernel(
    sums, bias, y, MN, N, SHARDS: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr
):
    """Y = the tree of the shard sums, plus the bias."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < MN
    total = join_tree(sums, at, MN, inside, SHARDS)
    if HAS_BIAS:
        total = total + contract.upcast(tl.load(bias + at % N, mask=inside, other=0.0))
    tl.store(y + at, contract.canonical(total), mask=inside)


@triton.jit(do_not_specialize=["M"])
def many_rows_kernel(
    x,
    weight,
    bias,
    y,
    scratch,
    M,
    N,
    in_features,
    first_shard,
    stride_m,
    stride_n,
    stride_k,
    SHARDS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
    ALIGN: tl.constexpr,
):
    """Tiles of y, shard after shard; sums that wait for their partner lie in scratch memory."""
    tiles_m = tl.cdiv(M, BM)
    tiles = tiles_m * tl.cdiv(N, BN)
    here = scratch + tl.program_id(0).to(tl.int64) * 3 * BM * BN
    at = tl.arange(0, BM)[:, None] * BN + tl.arange(0, BN)[None, :]
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), num_stages=1):
        m = tile % tiles_m * BM + tl.arange(0, BM)
        n = tile // tiles_m * BN + tl.arange(0, BN)
        x_rows = x + tl.minimum(m, M - 1).to(tl.int64) * stride_m
        w_rows = weight + tl.minimum(n, N - 1).to(tl.int64) * stride_n
        for i in tl.range(0, SHARDS, num_stages=1):
            begin, end = shard_range(first_shard + i, in_features, first_shard, ALIGN)
            total = shard_tile(x_rows, w_rows, stride_k, begin, end, BM, BN, BK, STAGES)
            if i % 2 == 1:
                total = tl.fma(tl.load(here + at), 1.0, total)
            if i % 4 == 3:
                total = tl.fma(tl.load(here + BM * BN + at), 1.0, total)
            if i % 8 == 7:
                total = tl.fma(tl.load(here + 2 * BM * BN + at), 1.0, total)
            if i == SHARDS - 1:
                if HAS_BIAS:
                    total = (
                        total + contract.upcast(tl.load(bias + n, mask=n < N, other=0.0))[None, :]
                    )
                inside = (m < M)[:, None] & (n < N)[None, :]
                out = y + m.to(tl.int64)[:, None] * N + n[None, :]
                tl.store(out, contract.canonical(total), mask=inside)
            else:
                level = tl.where(i % 4 == 3, 2, tl.where(i % 2 == 1, 1, 0))
                tl.store(here + level * BM * BN + at, total)
            tl.debug_barrier()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See `layercast.ops.linear`."""
    return _run(x, weight, bias, weight.shape[1], 0, SHARDS)


def linear_part(x: Tensor, weight: Tensor, in_features: int, part: int, parts: int) -> Tensor:
    """See `layercast.ops.linear_part`."""
    shards = SHARDS // parts
    return _run(x, weight, None, in_features, part * shards, shards)


def join_parts(parts: Tensor, bias: Tensor | None) -> Tensor:
    """See `layercast.ops.join_parts`. By torch's additions of tensors, each rounded once."""
    sums = list(parts)
    while len(sums) > 1:
        sums = [left + right for left, right in zip(sums[::2], sums[1::2], strict=True)]
    y: Tensor = sums[0].clone() if bias is None else sums[0] + bias.float()
    # Hardware differs in a NaN's sign and payload.
    return y.masked_fill_(y.isnan(), torch.nan)


def _run(
    x: Tensor, weight: Tensor, bias: Tensor | None, in_features: int, first_shard: int, shards: int
) -> Tensor:
    x = x.contiguous()
    N, K = weight.shape
    # A transposed view of a contiguous (K, N) is read as it lies.
    if not (weight.stride(0) == 1 and weight.stride(1) >= N):
        weight = with_unit_stride(weight)
    y = x.new_empty((*x.shape[:-1], N))
    M = rows_of(x)
    if M and N:
        run = _few_rows if M <= FEW_ROWS else _many_rows
        bias = None if bias is None else bias.contiguous()
        run(x, weight, bias, y, (M, N, K), (in_features, first_shard, shards))
    return y


def few_rows_tiles(M: int) -> dict[str, int]:
    """Tile of the kernel for M rows: up to 32 sums a thread, so that nothing spills."""
    BM = min(triton.next_power_of_2(M), FEW_ROWS)
    return {
        "BM": BM,
        "BN": 64,
        "BK": 32 if BM <= 4 else 16,
        "STAGES": 4,
        "num_warps": 1 if BM <= 16 else 2,
    }


def _few_rows(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    sizes: tuple[int, int, int],
    part: tuple[int, int, int],
) -> None:
    (M, N, K), (in_features, first_shard, shards) = sizes, part
    tiles = few_rows_tiles(M)
    sums = x.new_empty((shards, M, N))
    grid = (triton.cdiv(N, tiles["BN"]), shards, triton.cdiv(M, tiles["BM"]))
    few_rows_kernel[grid](
        x,
        weight,
        sums,
        M,
        N,
        in_features,
        first_shard,
        K,
        *weight.stride(),
        ALIGN=alignment(in_features),
        **tiles,
        **OPTIONS,
    )
    join_kernel[(triton.cdiv(M * N, JOIN_BLOCK),)](
        sums,
        sums if bias is None else bias,
        y,
        M * N,
        N,
        shards,
        bias is not None,
        JOIN_BLOCK,
        **OPTIONS,
    )


def many_rows_tiles(M: int) -> dict[str, int]:
    """Tile of the kernel for M rows."""
    return {"BM": 64 if M <= 64 else 128, "BN": 64, "BK": 16, "STAGES": 3, "num_warps": 8}


def _many_rows(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    sizes: tuple[int, int, int],
    part: tuple[int, int, int],
) -> None:
    (M, N, K), (in_features, first_shard, shards) = sizes, part
    tiles = many_rows_tiles(M)
    count = triton.cdiv(M, tiles["BM"]) * triton.cdiv(N, tiles["BN"])
    programs = min(count, 2 * multiprocessors(x.device))
    scratch = x.new_empty((programs, 3, tiles["BM"], tiles["BN"]))
    many_rows_kernel[(programs,)](
        x,
        weight,
        scratch if bias is None else bias,
        y,
        scratch,
        M,
        N,
        in_features,
        first_shard,
        K,
        *weight.stride(),
        SHARDS=shards,
        HAS_BIAS=bias is not None,
        ALIGN=alignment(in_features),
        **tiles,
        **OPTIONS,
    )
