"""Contract under test: threads that share one long row do not change a bit of it."""

from functools import lru_cache

import pytest
import torch

from layercast import ops
from layercast.kernels import reference
from layercast.testing import assert_bitwise_equal, poisoned_empty
from layercast.testing.strategies import draw_values

N = 20011
NAN, INFINITY = float("nan"), float("inf")
KEY = torch.tensor([5])

OPERATIONS = {
    "softmax": (ops.softmax, reference.softmax),
    "log_softmax": (ops.log_softmax, reference.log_softmax),
    "argmax": (ops.argmax, reference.argmax),
    "topk values": (lambda x: ops.topk(x, 60)[0], lambda x: reference.topk(x, 60)[0]),
    "topk indices": (lambda x: ops.topk(x, 60)[1], lambda x: reference.topk(x, 60)[1]),
    "topk of most": (lambda x: ops.topk(x, 3000)[1], lambda x: reference.topk(x, 3000)[1]),
}
EVERY = pytest.mark.parametrize("name", OPERATIONS)


@pytest.fixture(params=[1, 2, 3, 8])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def row(kind, n=N):
    return draw_values(kind, n, (1, n)).clamp(-40, 40)


def special_rows():
    """One row each: NaN and infinities early and late, ties across shards, zeros of both signs."""
    for position in (0, 127, 128, N // 8, N - 1):
        for value in (NAN, INFINITY):
            x = row("magnitudes")
            x[0, position] = value
            yield x
    yield torch.full((1, N), -INFINITY)
    ties = torch.full((1, N), -3.0)
    ties[0, [700, 9000, N - 1]] = 2.5
    yield ties
    zeros = -torch.zeros(1, N)
    zeros[0, ::3] = 0.0
    yield zeros
    two_nans = row("ties")
    two_nans[0, [5000, 15000]] = NAN
    yield two_nans


@lru_cache
def expected_of_special_rows(name):
    return [OPERATIONS[name][1](x) for x in special_rows()]


@EVERY
@pytest.mark.parametrize("kind", ["magnitudes", "ties"])
def test_long_rows_equal_the_reference(name, kind, threads):
    operation, expected = OPERATIONS[name]
    x = row(kind)
    with poisoned_empty():
        assert_bitwise_equal(operation(x), expected(x))


@EVERY
def test_special_values_in_long_rows_equal_the_reference(name, threads):
    for x, expected in zip(special_rows(), expected_of_special_rows(name), strict=True):
        assert_bitwise_equal(OPERATIONS[name][0](x), expected)


def test_partial_sums_of_threads_are_caught():
    """The control: a sum cut in two halves, one a thread, is not the contract's sum."""
    e = reference.exp(row("magnitudes") - 40)[0]
    half = N // 2
    halves = ops.dot(e[:half], torch.ones(half)) + ops.dot(e[half:], torch.ones(N - half))
    with pytest.raises(AssertionError, match="differ"):
        assert_bitwise_equal(halves, ops.dot(e, torch.ones(N)))


def test_log_softmax_over_a_whole_vocabulary_is_batch_invariant(threads):
    x = torch.randn(5, 151_936, generator=torch.Generator().manual_seed(1)) * 4
    whole = ops.log_softmax(x)
    for i in range(5):
        assert_bitwise_equal(ops.log_softmax(x[i : i + 1]), whole[i : i + 1])
    assert_bitwise_equal(ops.log_softmax(x[1:3]), whole[1:3])


@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"),
    [
        (N, 1.0, 0.0),
        (50, 1.0, 0.0),
        (N, 0.9, 0.0),
        (N, 0.999, 0.0),
        (2000, 0.5, 0.0),
        (N, 1.0, 0.02),
        (300, 0.95, 0.01),
    ],
)
@pytest.mark.parametrize("scale", [0.001, 1.0, 12.0])
def test_draws_from_long_rows_equal_the_reference(top_k, top_p, min_p, scale, threads):
    x = torch.randn(1, N, generator=torch.Generator().manual_seed(2)) * scale
    # Ties, where a threshold may fall among equals.
    x[0, ::2] = (x[0, ::2] * 4).round() / 4
    units = (round(top_p * 2**32), round(min_p * 2**32))
    for seed in range(3):
        actual = ops.sample(
            x,
            temperature=0.8,
            seed=seed,
            sequence_keys=KEY,
            positions=KEY,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
        )
        assert_bitwise_equal(
            actual, reference.sample(x, 0.8, seed, KEY, KEY, min(top_k, N), *units)
        )
