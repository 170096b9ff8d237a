"""`paged_attention`: `attention` over a cache in pages, for sequences packed side by side."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from layercast.errors import ShapeError, ValueRangeError
from layercast.kernels import cpu
from layercast.ops.attention import MAX_HEAD_DIM, check_settings, check_storage
from layercast.ops.backends import by_triton
from layercast.ops.checks import require_dims, require_dtype
from layercast.ops.registration import register, runs_directly


def _check_shapes(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    sequence_lengths: Tensor,
    cu_seqlens_q: Tensor,
    first_positions: Tensor | None,
    max_queries: int | None,
) -> None:
    for name, x, layout in (
        ("q", q, "(T, Hq, D)"),
        ("k_cache", k_cache, "(pages, page_size, Hkv, D)"),
        ("v_cache", v_cache, "(pages, page_size, Hkv, D)"),
    ):
        require_dims("paged_attention", name, x, layout.count(",") + 1, layout)
    check_storage("paged_attention", q, ("k_cache", k_cache), ("v_cache", v_cache))
    for name, x, layout in (
        ("block_table", block_table, "(B, pages of a sequence)"),
        ("sequence_lengths", sequence_lengths, "(B,)"),
        ("cu_seqlens_q", cu_seqlens_q, "(B + 1,)"),
    ):
        require_dtype("paged_attention", name, x, torch.int64)
        require_dims("paged_attention", name, x, 2 if name == "block_table" else 1, layout)
    B = block_table.shape[0]
    if first_positions is not None:
        require_dtype("paged_attention", "first_positions", first_positions, torch.int64)
        if first_positions.shape != (B,):
            raise ShapeError(
                f"paged_attention: `first_positions` must have shape ({B},) to fit `block_table` "
                f"{tuple(block_table.shape)}, got {tuple(first_positions.shape)}. Pass None where "
                "every sequence is held from its first token on."
            )
    Hkv, D = k_cache.shape[2:]
    if k_cache.shape != v_cache.shape or q.shape[2] != D or Hkv == 0 or q.shape[1] % Hkv:
        raise ShapeError(
            "paged_attention: `k_cache` and `v_cache` must have shape (pages, page_size, Hkv, "
            f"{q.shape[2]}) with Hkv dividing {q.shape[1]} to fit `q` {tuple(q.shape)}, got "
            f"{tuple(k_cache.shape)} and {tuple(v_cache.shape)}. Move axes with .permute()."
        )
    if not 1 <= D <= MAX_HEAD_DIM:
        raise ShapeError(
            f"paged_attention: head_dim must be within 1..{MAX_HEAD_DIM}, got {D}. "
            "Larger heads have no kernel."
        )
    if sequence_lengths.shape != (B,) or cu_seqlens_q.shape != (B + 1,):
        raise ShapeError(
            f"paged_attention: `sequence_lengths` and `cu_seqlens_q` must have shapes ({B},) and "
            f"({B + 1},) to fit `block_table` {tuple(block_table.shape)}, got "
            f"{tuple(sequence_lengths.shape)} and {tuple(cu_seqlens_q.shape)}. "
            "One length a sequence, and where each one's queries begin, then their number."
        )
    if max_queries is not None and max_queries < 1:
        raise ValueRangeError(
            f"paged_attention: `max_queries` must be at least 1, got {max_queries}. Leave it out "
            "where it is not known."
        )


def _check_strides(k_cache: Tensor, v_cache: Tensor) -> None:
    steps = []
    for name, cache in (("k_cache", k_cache), ("v_cache", v_cache)):
        page, slot, _, element = cache.stride()
        # The slots of pages that hold one are a page apart.
        if element != 1 or (cache.shape[1] != 1 and (slot < 1 or page % slot)):
            raise ShapeError(
                f"paged_attention: `{name}` must have heads contiguous in memory and pages a "
                f"multiple of a slot apart, got strides {cache.stride()}. "
                "Allocate the cache whole and permute views of it."
            )
        steps.append(1 if cache.shape[1] == 1 else page // slot)
    if steps[0] != steps[1]:
        raise ShapeError(
            "paged_attention: `k_cache` and `v_cache` must be laid out alike, got strides "
            f"{k_cache.stride()} and {v_cache.stride()}. Allocate both in one layout."
        )


def _check_lengths(
    tokens: int,
    room: int,
    sequence_lengths: Tensor,
    cu_seqlens_q: Tensor,
    first_positions: Tensor | None,
) -> None:
    """Refuse lengths that do not fit the queries, or the `room` of a sequence's pages."""
    lengths, starts = sequence_lengths.tolist(), cu_seqlens_q.tolist()
    firsts = [0] * len(lengths) if first_positions is None else first_positions.tolist()
    if starts[0] != 0 or starts[-1] != tokens:
        raise ValueRangeError(
            f"paged_attention: `cu_seqlens_q` must run from 0 to the {tokens} tokens of `q`, got "
            f"{starts[0]} to {starts[-1]}. It is the running sum of queries, with a leading 0."
        )
    for b, (first, length) in enumerate(zip(firsts, lengths, strict=True)):
        queries = starts[b + 1] - starts[b]
        if first < 0 or not 0 <= queries <= length - first <= room:
            held = f"length {length}" + (f" from position {first} on" if first else "")
            raise ValueRangeError(
                f"paged_attention: sequence {b} must have between its {queries} queries and "
                f"{room} keys, the room of its pages, got {held}. Put the new keys into the cache "
                "first, and list every page in `block_table`."
            )


def _check_queries(cu_seqlens_q: Tensor, max_queries: int | None) -> None:
    """Refuse a sequence with more queries than its caller says any has."""
    if max_queries is None:
        return
    most = max(cu_seqlens_q.diff().tolist(), default=0)
    if most > max_queries:
        raise ValueRangeError(
            "paged_attention: `max_queries` must be at least the queries of every sequence, got "
            f"{max_queries} and a sequence with {most}. Leave it out where it is not known."
        )


def _kernel(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    sequence_lengths: Tensor,
    cu_seqlens_q: Tensor,
    first_positions: Tensor | None,
    scale: float,
    window: int | None,
    softcap: float | None,
    max_queries: int | None = None,
) -> Tensor:
    tensors = (q, k_cache, v_cache, block_table, sequence_lengths, cu_seqlens_q, first_positions)
    _check_shapes(*tensors, max_queries)
    check_settings("paged_attention", window, softcap)
    _check_strides(k_cache, v_cache)
    room = block_table.shape[1] * k_cache.shape[1]
    if q.is_cpu:
        _check_lengths(q.shape[0], room, sequence_lengths, cu_seqlens_q, first_positions)
        _check_queries(cu_seqlens_q, max_queries)
        return cpu.paged_attention(*tensors, scale, window, softcap)
    # Nothing is read from the device, here or in a captured graph: what does not fit is NaN.
    paged: Callable[..., Tensor] = by_triton(cpu.paged_attention)
    return paged(*tensors, scale, window, softcap, max_queries=max_queries)


def _fake(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    sequence_lengths: Tensor,
    cu_seqlens_q: Tensor,
    first_positions: Tensor | None,
    scale: float,
    window: int | None,
    softcap: float | None,
    max_queries: int | None = None,
) -> Tensor:
    tensors = (q, k_cache, v_cache, block_table, sequence_lengths, cu_seqlens_q, first_positions)
    _check_shapes(*tensors, max_queries)
    check_settings("paged_attention", window, softcap)
    return q.new_empty(q.shape)


_operation = register(
    "paged_attention(Tensor q, Tensor k_cache, Tensor v_cache, Tensor block_table, "
    "Tensor sequence_lengths, Tensor cu_seqlens_q, Tensor? first_positions, float scale, "
    "int? window, float? softcap, int? max_queries=None) -> Tensor",
    _kernel,
    _fake,
)


def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    *,
    block_table: Tensor,
    sequence_lengths: Tensor,
    cu_seqlens_q: Tensor,
    scale: float,
    first_positions: Tensor | None = None,
    max_queries: int | None = None,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """`attention` over keys and values in pages, for a ragged batch of packed queries.

    Key p of sequence b is `k_cache[block_table[b, i // page_size], i % page_size]`, i = p -
    first_positions[b]. The queries of a sequence are its last positions: prefill whole, in chunks
    or one token at a time. With pages of one slot, a table of slots describes any cache.

    Order: that of `attention`, positions counted in the sequence. The bits of a query depend on it
    and on its sequence's keys alone: not on pages, their order or size, nor on other sequences.

    Args:
        q: Queries, float32, shape (T, Hq, D), sequences one after another, any strides.
        k_cache: Keys, float32, bfloat16 or float16, shape (pages, page_size, Hkv, D), read where
            they lie: a view of either usual layout, tokens or heads first within a page. 16-bit
            ones are upcast exactly as they are read: the bits are those of `k_cache.float()`.
        v_cache: Values, as `k_cache`, in its dtype, laid out alike.
        block_table: int64, shape (B, P): pages of each sequence in order; entries past its length
            are not looked at.
        sequence_lengths: int64, shape (B,): tokens of each sequence, new ones included.
        cu_seqlens_q: int64, shape (B + 1,): where each sequence's queries begin in `q`, then T.
        scale: Factor of the scores, usually D ** -0.5, rounded to float32.
        first_positions: int64, shape (B,): the first position of each sequence that the cache
            holds, where it has dropped those past a sliding window; None: 0 for all.
        max_queries: Most queries that any sequence has, for a CUDA launch of no more than it
            needs: 1 where all of them decode; None where that is not known.
        window: Keys a query sees, itself included, or None for all.
        softcap: Bound of the scores (Gemma 2), rounded to float32, or None.

    Returns:
        float32, shape (T, Hq, D), contiguous.

    Raises:
        DtypeError: q is not float32, the caches are not of one storage type, or an index is not
            int64.
        ShapeError: The shapes or layouts do not fit, or head_dim exceeds 512.
        ValueRangeError: A length, page or setting is out of range. On CUDA nothing is read back:
            sequences whose lengths, pages or queries do not fit are NaN instead.
        UnsupportedError: A tensor requires grad while grad mode is on.
        BackendError: Tensors lie on several devices, or on one without kernels.

    References:
        Kwon et al. 2023, arXiv:2309.06180 (pages); see `attention` for the rest.
    """
    tensors = (
        q, k_cache, v_cache, block_table, sequence_lengths, cu_seqlens_q, first_positions
    )  # fmt: skip
    if not runs_directly(*tensors):
        result: Tensor = _operation(*tensors, scale, window, softcap, max_queries)
        return result
    return _kernel(*tensors, scale, window, softcap, max_queries)
