"""Contract under test: rows of the table, upcast exactly."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layercast import ops
from layercast.errors import DtypeError, ShapeError, ValueRangeError
from layercast.kernels import reference
from layercast.testing import assert_bitwise_equal, poisoned_empty
from layercast.testing.strategies import draw_values, edge_sizes, kinds, seeds, storage_dtypes


@given(
    count=st.integers(0, 20),
    V=st.integers(1, 9),
    H=edge_sizes(maximum=70),
    kind=kinds(),
    seed=seeds(),
    dtype=storage_dtypes(),
)
def test_embedding_equals_the_reference(count, V, H, kind, seed, dtype):
    weight = draw_values(kind, seed, (V, H), dtype)
    ids = torch.randint(0, V, (2, count), generator=torch.Generator().manual_seed(seed))
    with poisoned_empty():
        assert_bitwise_equal(ops.embedding(ids, weight), reference.embedding(ids, weight))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_value_of_a_16_bit_type_is_upcast_exactly(dtype):
    words = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    weight = words.view(dtype).view(-1, 16)
    ids = torch.arange(weight.shape[0])
    assert_bitwise_equal(ops.embedding(ids, weight), weight.float())


def test_strided_table_and_ids():
    weight, ids = (
        draw_values("magnitudes", 1, (20, 12)).T[:, ::2],
        torch.arange(24).view(2, 12) % 12,
    )
    assert_bitwise_equal(ops.embedding(ids.T, weight), weight[ids.T])


def test_wrong_arguments_are_named():
    weight = torch.ones(5, 2)
    with pytest.raises(
        ValueRangeError, match=r"embedding: `ids` must lie in 0..4, got values from 0 to 5"
    ):
        ops.embedding(torch.tensor([0, 5]), weight)
    with pytest.raises(ValueRangeError, match="got values from -1"):
        ops.embedding(torch.tensor([-1]), weight)
    with pytest.raises(DtypeError, match=r"embedding: `ids` must be torch.int64"):
        ops.embedding(torch.tensor([0], dtype=torch.int32), weight)
    with pytest.raises(ShapeError, match="embedding: `weight` must have shape"):
        ops.embedding(torch.tensor([0]), torch.ones(5))
