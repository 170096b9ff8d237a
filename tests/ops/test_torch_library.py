"""Contract under test: operations trace, compile to the same bits and never cut a graph."""

from datetime import timedelta

import pytest
import torch
from torch import distributed
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from layercast import ops
from layercast.errors import BackendError, UnsupportedError, ValueRangeError
from layercast.testing import assert_bitwise_equal
from layercast.testing.strategies import draw_values

X = draw_values("magnitudes", 1, (3, 40)).clamp(-8, 8)
W = draw_values("magnitudes", 2, (24, 40), torch.bfloat16)
BIAS = draw_values("magnitudes", 3, (24,), torch.bfloat16)
GAIN = draw_values("magnitudes", 4, (40,), torch.bfloat16)
GATE_UP = draw_values("magnitudes", 8, (3, 12, 40), torch.bfloat16)
DOWN = draw_values("magnitudes", 9, (3, 40, 6), torch.bfloat16)
IDS = torch.tensor([[0, 5, 23], [1, 1, 2]])
Q = draw_values("magnitudes", 5, (2, 4, 6, 8)).clamp(-4, 4)
K = draw_values("magnitudes", 6, (2, 2, 6, 8)).clamp(-4, 4)
V = draw_values("magnitudes", 7, (2, 2, 6, 8))
POSITIONS = torch.arange(6)[None].repeat(2, 1)
COS, SIN = ops.rotary_table(POSITIONS, head_dim=8, base=1e4)


def group_of_one():
    """A process group that this process makes up alone, and that nobody else sees."""
    store = distributed.HashStore()
    group = distributed.ProcessGroup(store, 0, 1)
    gloo = distributed.ProcessGroupGloo(store, 0, 1, timedelta(seconds=60))
    group._register_backend(torch.device("cpu"), distributed.ProcessGroup.BackendType.GLOO, gloo)
    group._set_group_name("alone")
    torch._C._distributed_c10d._register_process_group("alone", group)
    return group


ALONE = group_of_one()
# Operation: (arguments of torch.ops.layercast.NAME, the same call by the public function).
CALLS = {
    "linear": ((X, W, BIAS), lambda x, w, b: ops.linear(x, w, b)),
    "linear_part": (
        (X, W, 80, 1, 2),
        lambda x, w, f, i, n: ops.linear_part(x, w, in_features=f, part=i, parts=n),
    ),
    "gather": ((X, ALONE.group_name, 1), lambda x, g, n: ops.gather(x, group=g, size=n)),
    "join_parts": (
        (torch.stack((X, X.flip(0))), X[0].half()),
        lambda p, b: ops.join_parts(p, b),
    ),
    "embedding": ((IDS, W), lambda i, w: ops.embedding(i, w)),
    "rms_norm": (
        (X, GAIN, 1e-6, False),
        lambda x, w, e, u: ops.rms_norm(x, w, eps=e, unit_offset=u),
    ),
    "layer_norm": (
        (X, GAIN, None, 1e-6),
        lambda x, w, b, e: ops.layer_norm(x, w, b, eps=e),
    ),
    "dot": ((X, X), lambda x, w: ops.dot(x, w)),
    "softmax": ((X,), lambda x: ops.softmax(x)),
    "log_softmax": ((X,), lambda x: ops.log_softmax(x)),
    "argmax": ((X,), lambda x: ops.argmax(x)),
    "topk": ((X, 3), lambda x, k: ops.topk(x, k)),
    "sample": (
        (X, 0.7, 5, torch.arange(3), torch.arange(3), 10, 0.9, 0.01),
        lambda x, t, s, k, p, top_k, top_p, min_p: ops.sample(
            x,
            temperature=t,
            seed=s,
            sequence_keys=k,
            positions=p,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
        ),
    ),
    "sigmoid": ((X,), lambda x: ops.sigmoid(x)),
    "silu": ((X,), lambda x: ops.silu(x)),
    "silu_mul": ((X, X.flip(0)), lambda g, u: ops.silu_mul(g, u)),
    "gelu_mul": ((X, X.flip(0)), lambda g, u: ops.gelu_mul(g, u)),
    "gelu_tanh_mul": ((X, None), lambda g, u: ops.gelu_tanh_mul(g, u)),
    "route": ((X, 3, True), lambda x, k, r: ops.route(x, k, renormalize=r)),
    "experts": (
        (X, GATE_UP, DOWN, torch.tensor([[0, 2], [1, 0], [2, 1]]), torch.ones(3, 2), "silu"),
        lambda x, g, d, i, w, a: ops.experts(x, g, d, i, w, activation=a),
    ),
    "gelu": ((X,), lambda x: ops.gelu(x)),
    "gelu_tanh": ((X,), lambda x: ops.gelu_tanh(x)),
    "tanh": ((X,), lambda x: ops.tanh(x)),
    "rotary_table": (
        (POSITIONS, 8, 1e4, None, 1.0),
        lambda p, d, b, f, s: ops.rotary_table(
            p, head_dim=d, base=b, inv_freq=f, attention_scaling=s
        ),
    ),
    "rotary": ((Q, K, COS, SIN), lambda q, k, c, s: ops.rotary(q, k, c, s)),
    "paged_attention": (
        (
            Q[0].transpose(0, 1),
            K.transpose(1, 2),
            V.transpose(1, 2),
            torch.arange(K.shape[0])[None],
            torch.tensor([K.shape[0] * K.shape[2]]),
            torch.tensor([0, Q.shape[2]]),
            torch.tensor([0]),
            0.3,
            5,
            2.0,
            Q.shape[2],
        ),
        lambda q, k, v, table, lengths, starts, firsts, s, w, c, most: ops.paged_attention(
            q,
            k,
            v,
            block_table=table,
            sequence_lengths=lengths,
            cu_seqlens_q=starts,
            first_positions=firsts,
            scale=s,
            window=w,
            softcap=c,
            max_queries=most,
        ),
    ),
    "attention": (
        (Q, K.bfloat16(), V.bfloat16(), POSITIONS, POSITIONS, 0.3, 5, 2.0),
        lambda q, k, v, qp, kp, s, w, c: ops.attention(
            q, k, v, query_positions=qp, key_positions=kp, scale=s, window=w, softcap=c
        ),
    ),
}
NOT_OPERATIONS = ("isa", "available_isas", "sequence_key")
EVERY = pytest.mark.parametrize("name", CALLS)


def results(value):
    return value if isinstance(value, tuple) else (value,)


def test_every_public_operation_is_listed():
    functions = {name for name in ops.__all__ if name not in NOT_OPERATIONS}
    assert functions == set(CALLS)


@EVERY
def test_opcheck_passes(name):
    arguments, _ = CALLS[name]
    torch.library.opcheck(getattr(torch.ops.layercast, name).default, arguments)


@EVERY
def test_the_registered_operation_has_the_bits_of_the_direct_call(name):
    arguments, call = CALLS[name]
    registered = getattr(torch.ops.layercast, name)(*arguments)
    for a, b in zip(results(registered), results(call(*arguments)), strict=True):
        assert_bitwise_equal(a, b)


@EVERY
def test_compiled_calls_have_the_same_bits(name):
    arguments, call = CALLS[name]
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for a, b in zip(results(compiled(*arguments)), results(call(*arguments)), strict=True):
        assert_bitwise_equal(a, b)


def test_inductor_keeps_the_bits():
    def layer(x):
        return ops.linear(ops.silu(ops.rms_norm(x, GAIN, eps=1e-6)), W, BIAS)

    torch._dynamo.reset()
    assert_bitwise_equal(torch.compile(layer, fullgraph=True)(X), layer(X))


@EVERY
def test_fake_tensors_have_the_shapes_of_the_real(name):
    arguments, call = CALLS[name]
    real = results(call(*arguments))
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments]
        fake = results(call(*fakes))
    for a, b in zip(fake, real, strict=True):
        assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())


@EVERY
def test_a_dispatch_mode_sees_the_operation(name):
    arguments, call = CALLS[name]
    seen = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func.name())
            return func(*args, **(kwargs or {}))

    with Recorder():
        recorded = results(call(*arguments))
    assert f"layercast::{name}" in seen
    for a, b in zip(recorded, results(call(*arguments)), strict=True):
        assert_bitwise_equal(a, b)


@EVERY
def test_a_graph_is_never_cut_silently(name):
    arguments, call = CALLS[name]
    floats = [
        i for i, a in enumerate(arguments) if isinstance(a, torch.Tensor) and a.is_floating_point()
    ]
    for i in floats:
        needing = list(arguments)
        needing[i] = arguments[i].clone().requires_grad_()
        with pytest.raises(UnsupportedError, match="inference_mode"):
            call(*needing)
        with pytest.raises(UnsupportedError, match="inference_mode"):
            getattr(torch.ops.layercast, name)(*needing)
        for quiet in (torch.no_grad, torch.inference_mode):
            with quiet():
                for a in results(call(*needing)):
                    assert not a.requires_grad


def test_another_device_is_named():
    """A fake tensor stands in for the device that this machine may lack."""
    with FakeTensorMode():
        x = torch.empty(3, 40, device="xpu")
        with pytest.raises(BackendError, match=r"softmax: `x` must be on the CPU or a .*, got xpu"):
            ops.softmax(x)


def fake_on_cuda(mode, arguments):
    """Fake tensors of a device that this machine may lack."""
    return [
        mode.fake_tensor_converter.from_meta_and_device(mode, a.to("meta"), torch.device("cuda:0"))
        if isinstance(a, torch.Tensor)
        else a
        for a in arguments
    ]


@EVERY
def test_fake_cuda_tensors_have_the_shapes_of_the_real(name):
    arguments, call = CALLS[name]
    real = results(call(*arguments))
    mode = FakeTensorMode()
    fakes = fake_on_cuda(mode, arguments)
    with mode:
        fake = results(call(*fakes))
    for a, b in zip(fake, real, strict=True):
        assert a.device.type == "cuda"
        assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())


@EVERY
def test_tensors_of_several_devices_are_refused(name):
    arguments, call = CALLS[name]
    tensors = [i for i, a in enumerate(arguments) if isinstance(a, torch.Tensor)]
    for i in tensors if len(tensors) > 1 else []:
        mode = FakeTensorMode()
        mixed = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments]
        mixed[i : i + 1] = fake_on_cuda(mode, arguments[i : i + 1])
        with mode, pytest.raises(BackendError, match=r"all on one CUDA device, got cpu, cuda:0"):
            call(*mixed)


@EVERY
def test_the_default_device_does_not_move_results(name):
    """A kernel would write to the address of a tensor that is not in this machine's memory."""
    arguments, call = CALLS[name]
    expected = results(call(*arguments))
    with torch.device("meta"):
        actual = results(call(*arguments))
    for a, b in zip(actual, expected, strict=True):
        assert_bitwise_equal(a, b)


@EVERY
def test_cuda_kernels_take_no_tensor_of_the_cpu(name):
    """As the dispatcher calls it where one tensor lies on a CUDA device and others do not."""
    arguments, _ = CALLS[name]
    there = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    with pytest.raises(BackendError, match=rf"{name}: tensors must all be .*, got cpu"):
        getattr(torch.ops.layercast, name).default.redispatch(there, *arguments)


@EVERY
def test_a_tensor_without_memory_is_never_read(name):
    """On the meta device a tensor has no address: a weight that was never loaded, say."""
    arguments, call = CALLS[name]
    tensors = [i for i, a in enumerate(arguments) if isinstance(a, torch.Tensor)]
    for i in tensors:
        mixed = list(arguments)
        mixed[i] = arguments[i].to("meta")
        if len(tensors) == 1:
            assert all(a.device.type == "meta" for a in results(call(*mixed)))
            continue
        with pytest.raises(UnsupportedError, match="got some on the meta device"):
            call(*mixed)


def test_parameters_are_taken_and_subclasses_go_through_the_dispatcher():
    weight = torch.nn.Parameter(W, requires_grad=False)
    assert_bitwise_equal(ops.linear(X, weight), ops.linear(X, W))

    class Tagged(torch.Tensor):
        pass

    tagged = X.as_subclass(Tagged)
    assert_bitwise_equal(ops.silu(tagged).as_subclass(torch.Tensor), ops.silu(X))


def test_gather_refuses_another_size_than_the_groups():
    with pytest.raises(ValueRangeError, match=r"gather: `size` must be .* 'alone', 1, got 2"):
        ops.gather(X, group=ALONE.group_name, size=2)


def test_inference_tensors_are_taken():
    with torch.inference_mode():
        x = X + 0
        y = ops.linear(x, W)
    assert_bitwise_equal(y.clone(), ops.linear(X, W))
