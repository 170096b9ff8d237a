"""Contract under test: `linear` equals the reference; a row's bits depend on that row alone."""

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from misordered import batch_dependent_linear, descending_linear, one_chain_linear

from layercast import ops
from layercast.errors import DtypeError, ShapeError, UnsupportedError
from layercast.kernels import reference
from layercast.testing import assert_bitwise_equal, poisoned_empty
from layercast.testing.strategies import draw_values, edge_sizes, kinds, seeds, storage_dtypes

linear_kernel = sys.modules["layercast.kernels.cpu.linear"]  # the function has its name


@given(
    M=edge_sizes(maximum=40, tiles=(4, 6, 8, 9, 36)),
    N=edge_sizes(maximum=110, tiles=(8, 16, 32, 48)),
    K=edge_sizes(maximum=700, tiles=(8, 16, 32, 64, 512)),
    kind=kinds(),
    seed=seeds(),
    dtype=storage_dtypes(),
    with_bias=st.booleans(),
    transposed=st.booleans(),
)
def test_linear_equals_the_reference(M, N, K, kind, seed, dtype, with_bias, transposed):
    x = draw_values(kind, seed, (M, K))
    weight = draw_values(kind, seed + 1, (N, K), dtype)
    if transposed:
        weight = weight.T.contiguous().T
    bias = draw_values(kind, seed + 2, (N,), dtype) if with_bias else None
    with poisoned_empty():
        actual = ops.linear(x, weight, bias)
    assert_bitwise_equal(actual, reference.linear(x, weight, bias))


@pytest.mark.parametrize(
    ("M", "N", "K"), [(523, 5, 70), (700, 49, 9), (1050, 1, 600), (60, 600, 65)]
)
def test_linear_in_blocks_of_rows_and_columns_equals_the_reference(M, N, K):
    x = draw_values("magnitudes", M, (M, K))
    weight = draw_values("magnitudes", N, (N, K), torch.bfloat16)
    bias = draw_values("magnitudes", K, (N,))
    with poisoned_empty():
        actual = ops.linear(x, weight, bias)
    assert_bitwise_equal(actual, reference.linear(x, weight, bias))


@pytest.mark.parametrize("misordered", [one_chain_linear, descending_linear])
def test_another_order_gives_other_bits(misordered):
    x, weight = draw_values("magnitudes", 1, (5, 300)), draw_values("magnitudes", 2, (9, 300))
    with pytest.raises(AssertionError, match="elements differ"):
        assert_bitwise_equal(misordered(x, weight), reference.linear(x, weight, None))


def assert_batch_invariant(linear, x, weight):
    whole = linear(x, weight)
    for size in (1, 2, 3, 7, 8, 12, 13, 31, 32):
        for start in range(0, x.shape[0], size):
            part = linear(x[start : start + size], weight)
            assert_bitwise_equal(part, whole[start : start + size], what=f"rows {start}+{size}")


@pytest.mark.parametrize("K", [1, 7, 64, 513, 2048])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_linear_is_batch_invariant(K, dtype):
    x = draw_values("magnitudes", K, (45, K))
    assert_batch_invariant(ops.linear, x, draw_values("magnitudes", K + 1, (37, K), dtype))


def test_a_kernel_chosen_by_batch_is_caught():
    x, weight = draw_values("magnitudes", 1, (45, 200)), draw_values("magnitudes", 2, (5, 200))
    with pytest.raises(AssertionError, match="elements differ"):
        assert_batch_invariant(batch_dependent_linear, x, weight)


@pytest.mark.parametrize("K", [512, 1024, 2048, 4096])
def test_every_sub_batch_of_512_rows_has_the_bits_of_the_whole(K):
    x = draw_values("magnitudes", K, (512, K))
    weight = draw_values("magnitudes", K + 1, (16, K), torch.bfloat16)
    whole = ops.linear(x, weight)
    for size in (1, 2, 5, 16, 64, 127, 255, 511):
        assert_bitwise_equal(ops.linear(x[:size], weight), whole[:size], what=f"first {size}")
        assert_bitwise_equal(ops.linear(x[-size:], weight), whole[-size:], what=f"last {size}")


def test_a_row_does_not_see_its_neighbours():
    x, weight = draw_values("magnitudes", 3, (16, 200)), draw_values("magnitudes", 4, (33, 200))
    alone = ops.linear(x[5:6], weight)
    x[:5] = torch.nan
    x[6:] = torch.inf
    assert_bitwise_equal(ops.linear(x, weight)[5:6], alone)


def test_a_column_does_not_see_its_neighbours():
    x, weight = draw_values("magnitudes", 3, (3, 200)), draw_values("magnitudes", 4, (33, 200))
    alone = ops.linear(x, weight[7:8])
    weight[:7] = torch.nan
    weight[8:] = torch.inf
    assert_bitwise_equal(ops.linear(x, weight)[:, 7:8], alone)


def test_linear_is_run_to_run_deterministic():
    x, weight = draw_values("magnitudes", 5, (9, 777)), draw_values("magnitudes", 6, (130, 777))
    first = ops.linear(x, weight)
    for _ in range(20):
        assert_bitwise_equal(ops.linear(x, weight), first)


@pytest.mark.parametrize("N", [1, 255, 256, 257, 8191, 8192])
def test_products_of_ones_and_integers_are_exact(N):
    ones, integers = torch.ones(1, 4), torch.arange(N, dtype=torch.float32)[:, None].expand(N, 4)
    weight = torch.cat([integers[:, :1], torch.zeros(N, 3)], dim=1)
    assert_bitwise_equal(ops.linear(ones, weight), torch.arange(N, dtype=torch.float32)[None])


def test_a_sum_of_integers_below_2_to_24_is_exact():
    K = 4096
    x = torch.ones(2, K)
    weight = torch.arange(K, dtype=torch.float32)[None]
    assert ops.linear(x, weight).tolist() == [[K * (K - 1) / 2]] * 2


@given(K=edge_sizes(minimum=1, maximum=3000), seed=seeds(), dtype=storage_dtypes())
def test_linear_is_accurate(K, seed, dtype):
    """Within gamma_K * sum|x||w| of the exact sum, gamma_K = K u / (1 - K u), u = 2**-24."""
    x = draw_values("magnitudes", seed, (3, K))
    weight = draw_values("magnitudes", seed + 1, (5, K), dtype)
    exact = x.double() @ weight.double().T
    gamma = K * 2.0**-24 / (1 - K * 2.0**-24)
    bound = gamma * (x.double().abs() @ weight.double().abs().T)
    assert ((ops.linear(x, weight).double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_strided_inputs_are_read_as_they_are_indexed(dtype):
    wide = draw_values("magnitudes", 7, (20, 2, 90))
    x = wide.transpose(0, 1)[:, ::3, ::2]
    table = draw_values("magnitudes", 8, (60, 100), dtype)
    for weight in (
        table[::2, 5:50],
        table[:45].T[:, :45],
        table[:10, :90:2],
        table[:1, :45].expand(7, 45),
    ):
        expected = ops.linear(x.contiguous(), weight.contiguous())
        assert_bitwise_equal(ops.linear(x, weight), expected)


@pytest.mark.parametrize("rows", [1, 5, 20])
def test_a_transposed_matrix_is_read_where_it_lies(rows, monkeypatch):
    x = draw_values("magnitudes", 8, (rows, 90))
    stored = draw_values("magnitudes", 9, (90, 77), torch.bfloat16)
    expected = ops.linear(x, stored.T.contiguous())
    monkeypatch.delattr(linear_kernel, "with_unit_stride")  # which copies
    assert_bitwise_equal(ops.linear(x, stored.T), expected)


def test_unaligned_weights_are_read_where_they_lie():
    flat = draw_values("magnitudes", 9, (33 * 70 + 1,), torch.bfloat16)
    weight = flat[1:].view(33, 70)
    x = draw_values("magnitudes", 10, (4, 70))
    assert_bitwise_equal(ops.linear(x, weight), ops.linear(x, weight.clone()))


@pytest.mark.parametrize("shape", [(0, 5, 3), (4, 0, 3), (4, 5, 0), (0, 0, 0)])
def test_empty_sizes(shape):
    M, N, K = shape
    y = ops.linear(torch.ones(M, K), torch.ones(N, K))
    assert_bitwise_equal(y, torch.zeros(M, N) if K == 0 else torch.full((M, N), float(K)))


def test_an_empty_sum_plus_a_negative_zero_bias_is_positive_zero():
    assert_bitwise_equal(
        ops.linear(torch.ones(2, 0), torch.ones(3, 0), -torch.zeros(3)), torch.zeros(2, 3)
    )


def test_nan_is_canonical():
    x = torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0], [1.0, 1.0]])
    x[0, 0] = torch.tensor(-1, dtype=torch.int32).view(torch.float32)
    y = ops.linear(x, torch.tensor([[0.0, 1.0]]))
    assert y.view(torch.int32).tolist()[:2] == [[0x7FC00000], [0x7FC00000]]
    assert y[2].item() == 1.0


@pytest.mark.parametrize(
    ("x", "weight", "bias", "error", "words"),
    [
        (torch.ones(2, 3).double(), torch.ones(4, 3), None, DtypeError, ["`x`", "float64", ".to("]),
        (torch.ones(2, 3), torch.ones(4, 3).int(), None, DtypeError, ["`weight`", "int32"]),
        (torch.ones(2, 3), torch.ones(3, 4), None, ShapeError, ["`x`", "(3, 4)", "(2, 3)"]),
        (torch.ones(2, 3), torch.ones(3), None, ShapeError, ["`weight`", "(N, K)"]),
        (torch.ones(2, 3), torch.ones(4, 3), torch.ones(3), ShapeError, ["`bias`", "(4,)"]),
        (torch.ones(()), torch.ones(4, 3), None, ShapeError, ["`x`"]),
        (
            torch.ones(2, 3, requires_grad=True),
            torch.ones(4, 3),
            None,
            UnsupportedError,
            ["`x`", "inference_mode"],
        ),
    ],
)
def test_wrong_arguments_are_named(x, weight, bias, error, words):
    with pytest.raises(error) as raised:
        ops.linear(x, weight, bias)
    assert str(raised.value).startswith("linear: ")
    for word in words:
        assert word in str(raised.value)
