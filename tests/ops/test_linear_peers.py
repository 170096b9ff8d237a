"""Contract under test: the products on which other deterministic kernels are reported to fail.

Batch-invariant matrix products elsewhere changed results with the batch at K = 512, 1024, 2048
and 4096, and lost integers above 2048 in `ones @ arange`, whose products went through 10-bit
significands.
"""

import pytest
import torch

from layercast import ops
from layercast.testing import assert_bitwise_equal
from layercast.testing.strategies import draw_values

ROWS = 512
DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)


def differing_sizes(linear, x, weight):
    """Sizes 1..rows whose first or last rows alone differ from the same rows of the whole."""
    whole = linear(x, weight)
    differing = []
    for size in range(1, len(x) + 1):
        first, last = linear(x[:size], weight), linear(x[-size:], weight)
        if not (torch.equal(first, whole[:size]) and torch.equal(last, whole[-size:])):
            differing.append(size)
    return differing


@pytest.mark.parametrize("K", [512, 1024, 2048, 4096])
def test_every_size_of_batch_has_the_bits_of_the_whole(K):
    x = draw_values("magnitudes", K, (ROWS, K))
    weight = draw_values("magnitudes", K + 1, (17, K), torch.bfloat16)
    assert differing_sizes(ops.linear, x, weight) == []


def test_a_product_whose_order_follows_the_batch_is_caught():
    """The control: the stock product of float32, cut otherwise for one row than for many."""
    x = draw_values("magnitudes", 1, (64, 4096))
    weight = draw_values("magnitudes", 2, (33, 4096))
    assert differing_sizes(torch.nn.functional.linear, x, weight) != []


@pytest.mark.parametrize("K", [512, 1024, 2048, 4096])
@pytest.mark.parametrize("size", [1, 3, 32, 100])
def test_rows_anywhere_in_the_batch_have_the_bits_of_the_whole(K, size):
    x = draw_values("magnitudes", K, (ROWS, K))
    weight = draw_values("magnitudes", K + 1, (17, K), torch.bfloat16)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(K))
    whole = ops.linear(x, weight)[order]
    for start in range(0, ROWS, size):
        rows = order[start : start + size]
        assert_bitwise_equal(ops.linear(x[rows], weight), whole[start : start + size])


@DTYPES
@pytest.mark.parametrize("count", [2048, 2049, 8192, 100_003])
def test_ones_times_arange_is_exact(dtype, count):
    """`ones (M, 1) @ arange (1, N)`: each output is the integer itself."""
    integers = torch.arange(count, dtype=torch.float32).to(dtype)
    weight = integers[:, None]
    for rows in (1, 3, 64):
        y = ops.linear(torch.ones(rows, 1), weight)
        assert_bitwise_equal(y, integers.float().expand(rows, count).contiguous())


@pytest.mark.parametrize("rows", [1, 4, 13, 64])
@pytest.mark.parametrize("K", [512, 1024, 2048, 4096, 5000])
def test_sums_of_integers_are_exact(rows, K):
    """Every partial sum is an integer below 2**24, so any order of summation is exact."""
    integers = torch.arange(K, dtype=torch.float32)
    expected = torch.full((rows, 2), K * (K - 1) / 2)
    weight = torch.stack([integers, integers.flip(0)])
    assert_bitwise_equal(ops.linear(torch.ones(rows, K), weight), expected)
    assert_bitwise_equal(
        ops.linear(integers.expand(rows, K).contiguous(), torch.ones(2, K).bfloat16()), expected
    )


def test_a_product_of_short_significands_is_caught():
    """The control: with inputs rounded to 10 bits, as TF32 does, integers above 2048 are lost."""
    integers = torch.arange(8192, dtype=torch.float32)
    rounded = (integers.view(torch.int32) + 0x1000).bitwise_and(~0x1FFF).view(torch.float32)
    with pytest.raises(AssertionError, match="elements differ"):
        assert_bitwise_equal(ops.linear(torch.ones(1, 1), rounded[:, None]), integers[None])
