"""Contract under test: operations on rows equal the reference; a row depends on itself alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layercast import ops
from layercast.errors import DtypeError, ShapeError, ValueRangeError
from layercast.kernels import reference
from layercast.testing import assert_bitwise_equal, poisoned_empty
from layercast.testing.strategies import draw_values, edge_sizes, kinds, seeds, storage_dtypes

INFINITY = float("inf")
NAN = float("nan")


def logits(kind, seed, shape):
    """Values whose exponentials do not all vanish."""
    values = draw_values(kind, seed, shape)
    return values if kind == "bits" else values.clamp(-40, 40)


@given(
    rows=st.integers(0, 4),
    n=edge_sizes(maximum=1500, tiles=(16, 64, 512)),
    kind=kinds(),
    seed=seeds(),
)
def test_dot_equals_the_reference(rows, n, kind, seed):
    x, w = draw_values(kind, seed, (rows, n)), draw_values(kind, seed + 1, (rows, n))
    with poisoned_empty():
        assert_bitwise_equal(ops.dot(x, w), reference.dot(x, w))
        w0 = draw_values(kind, seed + 2, (n,))
        assert_bitwise_equal(ops.dot(x, w0), reference.dot(x, w0))


@given(
    rows=st.integers(0, 4),
    n=edge_sizes(minimum=1, maximum=1500, tiles=(16, 64, 512)),
    kind=kinds(),
    seed=seeds(),
    dtype=storage_dtypes(),
    unit_offset=st.booleans(),
)
def test_rms_norm_equals_the_reference(rows, n, kind, seed, dtype, unit_offset):
    x, weight = draw_values(kind, seed, (rows, n)), draw_values(kind, seed + 1, (n,), dtype)
    with poisoned_empty():
        actual = ops.rms_norm(x, weight, eps=1e-6, unit_offset=unit_offset)
    assert_bitwise_equal(actual, reference.rms_norm(x, weight, 1e-6, unit_offset))


@given(
    rows=st.integers(0, 4),
    n=edge_sizes(minimum=1, maximum=1500, tiles=(16, 64, 512)),
    kind=kinds(),
    seed=seeds(),
    dtype=storage_dtypes(),
    with_weight=st.booleans(),
    with_bias=st.booleans(),
)
def test_layer_norm_equals_the_reference(rows, n, kind, seed, dtype, with_weight, with_bias):
    x = draw_values(kind, seed, (rows, n))
    weight = draw_values(kind, seed + 1, (n,), dtype) if with_weight else None
    bias = draw_values(kind, seed + 2, (n,), torch.bfloat16) if with_bias else None
    with poisoned_empty():
        actual = ops.layer_norm(x, weight, bias, eps=1e-5)
    assert_bitwise_equal(actual, reference.layer_norm(x, weight, bias, 1e-5))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@given(
    rows=st.integers(0, 4),
    n=edge_sizes(minimum=1, maximum=1500, tiles=(16, 64, 512)),
    kind=kinds(),
    seed=seeds(),
)
def test_softmax_equals_the_reference(name, rows, n, kind, seed):
    x = logits(kind, seed, (rows, n))
    with poisoned_empty():
        actual = getattr(ops, name)(x)
    assert_bitwise_equal(actual, getattr(reference, name)(x))


@given(rows=st.integers(0, 4), n=edge_sizes(minimum=1, maximum=300), kind=kinds(), seed=seeds())
def test_argmax_equals_the_reference(rows, n, kind, seed):
    x = draw_values(kind, seed, (rows, n))
    assert_bitwise_equal(ops.argmax(x), reference.argmax(x))


ROW_OPERATIONS = {
    "dot": lambda x: ops.dot(x, x),
    "rms_norm": lambda x: ops.rms_norm(x, torch.ones(x.shape[-1]), eps=1e-5),
    "layer_norm": lambda x: ops.layer_norm(x, torch.ones(x.shape[-1]), eps=1e-5),
    "softmax": ops.softmax,
    "log_softmax": ops.log_softmax,
    "argmax": ops.argmax,
}


@pytest.mark.parametrize("name", ROW_OPERATIONS)
@pytest.mark.parametrize("n", [5, 64, 1000])
def test_rows_are_batch_invariant(name, n):
    operation = ROW_OPERATIONS[name]
    x = logits("magnitudes", n, (33, n))
    whole = operation(x)
    for size in (1, 2, 8, 32):
        for start in range(0, 33, size):
            assert_bitwise_equal(operation(x[start : start + size]), whole[start : start + size])


@pytest.mark.parametrize("name", ROW_OPERATIONS)
def test_a_row_does_not_see_its_neighbours(name):
    operation = ROW_OPERATIONS[name]
    x = logits("magnitudes", 4, (7, 300))
    alone = operation(x[3:4])
    x[:3], x[4:] = NAN, INFINITY
    assert_bitwise_equal(operation(x)[3:4], alone)


def test_another_order_of_the_sum_gives_other_bits():
    """The control: the values show an order, since the same sum from the other end differs."""
    x = draw_values("magnitudes", 11, (1, 1000))
    ones = torch.ones(1000)
    with pytest.raises(AssertionError, match="differ"):
        assert_bitwise_equal(ops.dot(x.flip(-1), ones), ops.dot(x, ones))


@pytest.mark.parametrize("name", ROW_OPERATIONS)
def test_strided_rows_are_read_as_they_are_indexed(name):
    operation = ROW_OPERATIONS[name]
    x = logits("magnitudes", 6, (40, 30)).T[::2, 3:37:3]
    assert_bitwise_equal(operation(x), operation(x.contiguous()))


@given(n=edge_sizes(minimum=1, maximum=3000), seed=seeds())
def test_dot_is_accurate(n, seed):
    x, w = draw_values("magnitudes", seed, (2, n)), draw_values("magnitudes", seed + 1, (2, n))
    gamma = n * 2.0**-24 / (1 - n * 2.0**-24)
    bound = gamma * (x.double() * w.double()).abs().sum(-1)
    assert ((ops.dot(x, w).double() - (x.double() * w.double()).sum(-1)).abs() <= bound).all()


def test_softmax_of_masked_rows():
    x = torch.tensor([[0.0, -INFINITY], [-INFINITY, -INFINITY], [NAN, 0.0], [INFINITY, 0.0]])
    softmax, log_softmax = ops.softmax(x), ops.log_softmax(x)
    assert softmax[0].tolist() == [1.0, 0.0]
    assert log_softmax[0].tolist() == [0.0, -INFINITY]
    for result in (softmax, log_softmax):
        assert (result[1:].view(torch.int32) == 0x7FC00000).all()


def test_softmax_of_large_logits_does_not_overflow():
    x = torch.tensor([[3e38, 3e38, -3e38]])
    assert ops.softmax(x).tolist() == [[0.5, 0.5, 0.0]]


def test_empty_rows():
    assert ops.softmax(torch.ones(3, 0)).shape == (3, 0)
    assert ops.log_softmax(torch.ones(0, 3)).shape == (0, 3)
    assert_bitwise_equal(ops.dot(torch.ones(3, 0), torch.ones(3, 0)), torch.zeros(3))
    assert ops.rms_norm(torch.ones(2, 0), torch.ones(0), eps=1e-6).shape == (2, 0)
    assert ops.layer_norm(torch.ones(2, 0), eps=1e-6).shape == (2, 0)
    with pytest.raises(ShapeError, match="argmax: `x` must have at least one element"):
        ops.argmax(torch.ones(2, 0))


def test_argmax_takes_the_lowest_index_and_the_first_nan():
    x = torch.tensor([[1.0, 3.0, 3.0], [-0.0, 0.0, -1.0], [5.0, NAN, NAN], [-INFINITY] * 3])
    assert ops.argmax(x).tolist() == [1, 0, 1, 0]


def test_rms_norm_of_nan_and_infinity():
    x = torch.tensor([[1.0, NAN], [1.0, INFINITY], [0.0, 0.0]])
    y = ops.rms_norm(x, torch.ones(2), eps=1e-6)
    assert y[0].isnan().all()
    assert y[1, 0] == 0.0
    assert y[1, 1].isnan()
    assert_bitwise_equal(y[2], torch.zeros(2))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: ops.softmax(torch.ones(2).half()),
            DtypeError,
            "softmax: `x` must be torch.float32",
        ),
        (
            lambda: ops.log_softmax(torch.ones(())),
            ShapeError,
            "log_softmax: `x` must have at least",
        ),
        (
            lambda: ops.dot(torch.ones(2, 3), torch.ones(2)),
            ShapeError,
            "dot: `w` must have the shape",
        ),
        (lambda: ops.dot(torch.ones(2), torch.ones(2).half()), DtypeError, "dot: `w` must be"),
        (
            lambda: ops.rms_norm(torch.ones(2, 3), torch.ones(2), eps=1e-6),
            ShapeError,
            "rms_norm: `weight` must have shape",
        ),
        (
            lambda: ops.layer_norm(torch.ones(2, 3), None, torch.ones(2), eps=1e-6),
            ShapeError,
            "layer_norm: `bias` must have shape",
        ),
        (
            lambda: ops.rms_norm(torch.ones(2, 3), torch.ones(3), eps=-1.0),
            ValueRangeError,
            "rms_norm: `eps` must be >= 0",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
