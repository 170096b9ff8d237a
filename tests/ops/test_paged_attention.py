"""Contract under test: pages, their order and size and other sequences change no bit of a query."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layercast import ops
from layercast.errors import DtypeError, ShapeError, ValueRangeError
from layercast.kernels import reference
from layercast.testing import assert_bitwise_equal, poisoned_empty
from layercast.testing.strategies import draw_values, seeds

NAN = float("nan")


def paged(sequences, page_size, seed, *, heads_first=False, firsts=None):
    """A cache of NaN with each sequence's keys and values in pages drawn at random."""
    _, Hkv, _, D = sequences[0][1].shape
    dtype = sequences[0][1].dtype
    firsts = firsts or [0] * len(sequences)
    counts = [-(-(s[1].shape[2] - n) // page_size) for s, n in zip(sequences, firsts, strict=True)]
    pages = sum(counts) + 3
    shape = (pages, Hkv, page_size, D) if heads_first else (pages, page_size, Hkv, D)
    caches = [torch.full(shape, NAN, dtype=dtype) for _ in range(2)]
    if heads_first:
        caches = [cache.transpose(1, 2) for cache in caches]
    order = torch.randperm(pages, generator=torch.Generator().manual_seed(seed)).tolist()
    table = torch.full((len(sequences), max(counts) + 1), -7)
    for b, (_, *kv) in enumerate(sequences):
        for i in range(counts[b]):
            table[b, i] = page = order.pop()
            for cache, x in zip(caches, kv, strict=True):
                held = x[0, :, firsts[b] :]
                part = held[:, i * page_size : (i + 1) * page_size].transpose(0, 1)
                cache[page, : part.shape[0]] = part
    starts = [0]
    for q, _, _ in sequences:
        starts.append(starts[-1] + q.shape[2])
    return (
        torch.cat([q[0].transpose(0, 1) for q, _, _ in sequences]),
        *caches,
        {
            "block_table": table,
            "sequence_lengths": torch.tensor([k.shape[2] for _, k, _ in sequences]),
            "cu_seqlens_q": torch.tensor(starts),
            "first_positions": torch.tensor(firsts) if any(firsts) else None,
        },
    )


def draw_sequence(seed, heads, D, length, queries, dtype=torch.float32):
    Hq, Hkv = heads
    return (
        draw_values("magnitudes", seed, (1, Hq, queries, D)) / 1e5,
        (draw_values("magnitudes", seed + 1, (1, Hkv, length, D)) / 1e5).to(dtype),
        draw_values("magnitudes", seed + 2, (1, Hkv, length, D), dtype),
    )


def alone(q, k, v, **options):
    length, queries = k.shape[2], q.shape[2]
    positions = torch.arange(length)[None]
    return ops.attention(
        q,
        k.float(),
        v.float(),
        query_positions=positions[:, length - queries :],
        key_positions=positions,
        **options,
    )[0]


HEADS = ((4, 2), (3, 1), (2, 2))


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=4),
    heads=st.sampled_from(HEADS),
    D=st.sampled_from((32, 64, 20)),
    page_size=st.sampled_from((1, 3, 16, 64, 100)),
    window=st.sampled_from((None, 1, 40)),
    softcap=st.sampled_from((None, 5.0)),
    heads_first=st.booleans(),
    dtype=st.sampled_from((torch.float32, torch.bfloat16, torch.float16)),
    seed=seeds(),
    data=st.data(),
)
def test_a_sequence_in_pages_has_the_bits_it_has_alone(
    lengths, heads, D, page_size, window, softcap, heads_first, dtype, seed, data
):
    queries = [data.draw(st.sampled_from((1, n, (n + 1) // 2))) for n in lengths]
    sequences = [
        draw_sequence(seed + 10 * b, heads, D, n, m, dtype)
        for b, (n, m) in enumerate(zip(lengths, queries, strict=True))
    ]
    q, k, v, where = paged(sequences, page_size, seed, heads_first=heads_first)
    options = {"scale": D**-0.5, "window": window, "softcap": softcap}
    with poisoned_empty():
        actual = ops.paged_attention(q, k, v, **where, **options)
    starts = where["cu_seqlens_q"].tolist()
    for b, sequence in enumerate(sequences):
        assert_bitwise_equal(actual[starts[b] : starts[b + 1]], alone(*sequence, **options))


@settings(max_examples=20)
@given(
    page_size=st.sampled_from((1, 16, 100)),
    window=st.sampled_from((1, 40, 70)),
    dtype=st.sampled_from((torch.float32, torch.bfloat16)),
    seed=seeds(),
)
def test_keys_past_the_window_need_not_be_held(page_size, window, dtype, seed):
    sizes = [(200, 1), (90, 30), (12, 12), (131, 1)]
    sequences = [
        draw_sequence(seed + 10 * b, (4, 2), 32, n, m, dtype) for b, (n, m) in enumerate(sizes)
    ]
    firsts = [max(0, n - m - window + 1) for n, m in sizes]
    q, k, v, where = paged(sequences, page_size, seed, firsts=firsts)
    options = {"scale": 0.3, "window": window}
    with poisoned_empty():
        actual = ops.paged_attention(q, k, v, **where, **options)
    starts = where["cu_seqlens_q"].tolist()
    for b, sequence in enumerate(sequences):
        assert_bitwise_equal(actual[starts[b] : starts[b + 1]], alone(*sequence, **options))


def test_slots_of_a_rolled_cache_are_pages_of_one():
    # A ring of `window` slots: position p lies at p % window, as sliding-window caches keep it.
    length, window = 150, 48
    q, k, v = draw_sequence(4, (4, 2), 32, length, 1)
    ring = [torch.full((window + 5, 2, 32), NAN) for _ in range(2)]
    kept = torch.arange(length - window, length)
    for cache, x in zip(ring, (k, v), strict=True):
        cache[kept % window] = x[0, :, kept].transpose(0, 1)
    actual = ops.paged_attention(
        q[0].transpose(0, 1),
        *(cache[:, None] for cache in ring),
        block_table=(kept % window)[None],
        sequence_lengths=torch.tensor([length]),
        cu_seqlens_q=torch.tensor([0, 1]),
        first_positions=torch.tensor([length - window]),
        scale=0.3,
        window=window,
    )
    assert_bitwise_equal(actual, alone(q, k, v, scale=0.3, window=window))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("firsts", [None, [8, 0]])
def test_paged_attention_equals_the_reference(dtype, firsts):
    sequences = [
        draw_sequence(b, (4, 2), 20, n, m, dtype) for b, (n, m) in enumerate([(70, 5), (9, 9)])
    ]
    q, k, v, where = paged(sequences, 16, 1, firsts=firsts)
    expected = reference.paged_attention(q, k, v, *where.values(), 0.3, 60, None)
    assert_bitwise_equal(ops.paged_attention(q, k, v, **where, scale=0.3, window=60), expected)


def test_blocks_cut_at_pages_give_other_bits():
    """What a kernel would do that merged a page at a time, as others' do."""
    sequence = draw_sequence(3, (2, 2), 32, 100, 1)
    q, k, v = sequence
    whole = alone(*sequence, scale=0.2)
    positions = torch.arange(100)
    shifted = ops.attention(
        q,
        k,
        v,
        query_positions=positions[None, -1:] + 16,
        key_positions=positions[None] + 16,
        scale=0.2,
    )[0]
    with pytest.raises(AssertionError, match="elements differ"):
        assert_bitwise_equal(shifted, whole)


def test_no_sequence_and_no_query_give_nothing():
    cache = torch.zeros(2, 4, 1, 8)
    for B, lengths in ((0, []), (2, [3, 0])):
        o = ops.paged_attention(
            torch.zeros(0, 1, 8),
            cache,
            cache,
            block_table=torch.zeros(B, 1, dtype=torch.int64),
            sequence_lengths=torch.tensor(lengths, dtype=torch.int64),
            cu_seqlens_q=torch.zeros(B + 1, dtype=torch.int64),
            scale=1.0,
        )
        assert o.shape == (0, 1, 8)


def arguments(**changed):
    given = {
        "q": torch.ones(2, 2, 8),
        "k_cache": torch.ones(3, 4, 1, 8),
        "v_cache": torch.ones(3, 4, 1, 8),
        "block_table": torch.tensor([[2, 0]]),
        "sequence_lengths": torch.tensor([6]),
        "cu_seqlens_q": torch.tensor([0, 2]),
        "scale": 1.0,
    }
    return given | changed


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"q": torch.ones(2, 2, 8).double()}, DtypeError, ["`q`", "float64"]),
        ({"k_cache": torch.ones(3, 4, 8)}, ShapeError, ["`k_cache`", "(pages"]),
        ({"k_cache": torch.ones(3, 4, 1, 9)}, ShapeError, ["`k_cache`", "(3, 4, 1, 9)"]),
        ({"k_cache": torch.ones(4, 3, 1, 8).transpose(0, 1)}, ShapeError, ["strides", "Allocate"]),
        ({"block_table": torch.tensor([[2, 0]]).int()}, DtypeError, ["`block_table`", "int32"]),
        ({"k_cache": torch.ones(3, 4, 1, 8).bfloat16()}, DtypeError, ["one dtype", "bfloat16"]),
        ({"v_cache": torch.ones(3, 4, 1, 8).double()}, DtypeError, ["`v_cache`", "float64"]),
        ({"block_table": torch.tensor([[2, 3]])}, ValueRangeError, ["`block_table`", "0..2"]),
        ({"block_table": torch.tensor([[-1, 0]])}, ValueRangeError, ["got -1", "sequence 0"]),
        ({"first_positions": torch.tensor([5])}, ValueRangeError, ["from position 5 on"]),
        ({"first_positions": torch.tensor([-1])}, ValueRangeError, ["sequence 0", "-1"]),
        ({"first_positions": torch.tensor([0, 0])}, ShapeError, ["`first_positions`", "(1,)"]),
        ({"first_positions": torch.tensor([0]).int()}, DtypeError, ["`first_positions`", "int32"]),
        ({"sequence_lengths": torch.tensor([9])}, ValueRangeError, ["sequence 0", "9"]),
        ({"sequence_lengths": torch.tensor([1])}, ValueRangeError, ["2 queries"]),
        ({"sequence_lengths": torch.tensor([6, 1])}, ShapeError, ["`sequence_lengths`", "(1,)"]),
        ({"cu_seqlens_q": torch.tensor([0, 1])}, ValueRangeError, ["`cu_seqlens_q`", "0 to 1"]),
        ({"max_queries": 1}, ValueRangeError, ["`max_queries`", "sequence with 2"]),
        ({"max_queries": 0}, ValueRangeError, ["`max_queries`", "at least 1"]),
        ({"window": 0}, ValueRangeError, ["`window`"]),
        ({"softcap": -1.0}, ValueRangeError, ["`softcap`"]),
    ],
)
def test_wrong_arguments_are_named(changed, error, words):
    with pytest.raises(error) as raised:
        ops.paged_attention(**arguments(**changed))
    assert str(raised.value).startswith("paged_attention: ")
    for word in words:
        assert word in str(raised.value)
