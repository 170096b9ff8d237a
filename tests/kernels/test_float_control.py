"""Contract under test: the caller's flush-to-zero neither leaks in nor is disturbed."""

import pytest
import torch

from layercast import ops
from layercast.kernels import cpu, reference
from layercast.testing import assert_bitwise_equal

TINY = torch.tensor([1e-40, -3e-45, 1e-38])


@pytest.fixture
def flush_to_zero():
    if not torch.set_flush_denormal(True):
        pytest.fail("this machine cannot flush subnormals; the test has nothing to check")
    yield
    torch.set_flush_denormal(False)


def flushes():
    return (TINY * 1.0)[0].item() == 0.0


OPERATIONS = {
    "silu_mul": lambda: ops.silu_mul(TINY, torch.ones(3)),
    "route": lambda: ops.route(torch.tensor([0.0, -100.0, -90.0]), 3, renormalize=True)[0],
    "topk": lambda: ops.topk(TINY, 3)[1],
    "argmax": lambda: ops.argmax(TINY.flip(0)),
    "experts": lambda: ops.experts(
        TINY[None],
        torch.eye(3).repeat(2, 1)[None],
        torch.eye(3)[None],
        torch.zeros(1, 1, dtype=torch.int64),
        torch.ones(1, 1),
        activation="silu",
    ),
    "linear": lambda: ops.linear(TINY[None], torch.eye(3) * 0.5),
    "dot": lambda: ops.dot(TINY, torch.ones(3)),
    "silu": lambda: ops.silu(TINY),
    "sigmoid": lambda: ops.sigmoid(torch.tensor([-90.0, -100.0])),
    "tanh": lambda: ops.tanh(TINY),
    "gelu": lambda: ops.gelu(TINY),
    "gelu_tanh": lambda: ops.gelu_tanh(TINY),
    "layer_norm": lambda: ops.layer_norm(TINY, eps=0.0),
    "exp": lambda: cpu.exp(torch.tensor([-95.0, -100.0, -103.0])),
    "log": lambda: cpu.log(TINY.abs()),
    "softmax": lambda: ops.softmax(torch.tensor([0.0, -100.0])),
    "rms_norm": lambda: ops.rms_norm(TINY, torch.ones(3), eps=0.0),
    "rotary": lambda: ops.rotary(*([TINY[:2].view(1, 1, 1, 2)] * 2), *([torch.ones(1, 1, 2)] * 2))[
        0
    ],
    "attention": lambda: ops.attention(
        *([TINY.view(1, 1, 1, 3)] * 3),
        query_positions=torch.zeros(1, 1, dtype=torch.int64),
        key_positions=torch.zeros(1, 1, dtype=torch.int64),
        scale=1.0,
    ),
}
EVERY = pytest.mark.parametrize("name", OPERATIONS)


@EVERY
def test_flush_to_zero_does_not_leak_in(name, flush_to_zero):
    torch.set_flush_denormal(False)
    expected = OPERATIONS[name]()
    torch.set_flush_denormal(True)
    assert_bitwise_equal(OPERATIONS[name](), expected)


@EVERY
def test_the_callers_flush_to_zero_stays(name, flush_to_zero):
    assert flushes()
    OPERATIONS[name]()
    assert flushes()


def test_stock_operations_obey_the_flag(flush_to_zero):
    """The control: the flag is real, and a kernel that obeyed it would differ."""
    stock = TINY[None] @ (torch.eye(3) * 0.5)
    with pytest.raises(AssertionError, match="differ"):
        assert_bitwise_equal(stock, ops.linear(TINY[None], torch.eye(3) * 0.5))


def test_worker_threads_keep_subnormals(flush_to_zero):
    x = torch.full((4, 64), 1e-40)
    weight = torch.full((4096, 64), 0.5)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        actual = ops.linear(x, weight)
    finally:
        torch.set_num_threads(before)
    torch.set_flush_denormal(False)
    assert_bitwise_equal(actual, reference.linear(x, weight[:1], None).expand(4, 4096).contiguous())
