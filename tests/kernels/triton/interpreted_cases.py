"""Runs the Triton kernels in Triton's interpreter and prints which have the reference's bits.

A program of its own, as `TRITON_INTERPRET` is read when Triton is imported. The interpreter
computes `tl.dot` by numpy, in numpy's order, and `tl.fma` by a product and a sum. Both are replaced
by the chain of fused multiply-adds that the compiled instruction is: what is compared is then all
that the kernels decide themselves, shards, chunks, trees, masks and functions, and nothing of what
the compiler makes of `tl.dot`. The compiled code is looked at in test_triton_ptx.py.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"

import importlib
import json
import sys
import warnings
from contextlib import contextmanager

import numpy as np
import torch
import triton.runtime.interpreter as interpreter

from layercast.kernels import reference
from layercast.kernels import triton as kernels
from layercast.kernels.reference.arithmetic import fma
from layercast.numerics import part_bounds
from layercast.testing import assert_bitwise_equal, poisoned, poisoned_empty
from layercast.testing.strategies import draw_values

KINDS = ("magnitudes", "bits", "ties")
CASES = {}
_NUMPY_DOT = interpreter.InterpreterBuilder.create_dot


def chain(builder, a, b, d, input_precision, max_num_imprecise_acc):
    """`tl.dot` as one chain of fused multiply-adds an element."""
    acc = d.data
    for k in range(a.data.shape[-1]):
        acc = fma(a.data[..., :, k, None], b.data[..., k, None, :], acc)
    return interpreter.TensorHandle(acc, d.dtype.scalar)


def fused(builder, x, y, z):
    """`tl.fma` rounded once."""
    value = fma(x.data, y.data, z.data) if z.data.dtype == np.float32 else x.data * y.data + z.data
    return interpreter.TensorHandle(value, z.dtype.scalar)


def case(function):
    """Collect a function whose every yield is a pair that must have the same bits."""
    CASES[function.__name__] = function
    return function


def same(name, *arguments):
    """What both backends make of a call."""
    return getattr(kernels, name)(*arguments), getattr(reference, name)(*arguments)


@case
def elementwise():
    edges = torch.tensor(
        [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 89, -105, -104, 1e-40, -1e-40]
    )
    for name in ("exp", "log", "tanh", "silu", "sigmoid", "gelu", "gelu_tanh"):
        for kind in KINDS:
            x = draw_values(kind, 3, (5000,))
            x[: edges.numel()] = edges
            yield same(name, x)


@case
def linear():
    shapes = [
        (1, 65, 512, torch.bfloat16, "magnitudes", True),
        (3, 70, 1100, torch.bfloat16, "magnitudes", False),
        (8, 33, 77, torch.float16, "bits", True),
        (20, 20, 130, torch.float32, "magnitudes", True),
        (33, 70, 700, torch.bfloat16, "magnitudes", True),
        (70, 20, 512, torch.bfloat16, "ties", False),
        (2, 3, 0, torch.float32, "ties", True),
        (40, 3, 5, torch.float32, "bits", True),
    ]
    for M, N, K, dtype, kind, has_bias in shapes:
        x, w = draw_values(kind, 1, (M, K)), draw_values(kind, 2, (N, K), dtype)
        bias = draw_values(kind, 3, (N,), dtype) if has_bias else None
        yield same("linear", x, w, bias)
        yield same("linear", x, w.T.contiguous().T, bias)


@case
def linear_part_and_join_parts():
    K = 333
    for M in (2, 40):
        x, w = draw_values("magnitudes", 1, (M, K)), draw_values("magnitudes", 2, (9, K))
        for parts in (1, 2, 4, 8):
            for part in range(parts):
                begin, end = part_bounds(K, part, parts)
                mine = x[:, begin:end].contiguous(), w[:, begin:end].contiguous()
                yield same("linear_part", *mine, K, part, parts)
            sums = draw_values("magnitudes", parts, (parts, M, 9))
            yield same("join_parts", sums, None)
            yield same("join_parts", sums, draw_values("bits", 4, (9,), torch.bfloat16))


@case
def rows():
    for kind in KINDS:
        # The last is longer than a group of chunks.
        for count, n in ((3, 5), (1, 700), (1, 8501)) if kind == "magnitudes" else ((2, 70),):
            x, w = draw_values(kind, 1, (count, n)), draw_values(kind, 2, (n,))
            yield same("dot", x, w)
            yield same("rms_norm", x, w, 1e-6, True)
            yield same("rms_norm", x, w.bfloat16(), 1e-6, False)
            yield same("layer_norm", x, w, w, 1e-6)
            yield same("layer_norm", x, None, None, 1e-6)
            logits = x if kind == "bits" else x.clamp(-40, 40)
            yield same("softmax", logits)
            yield same("log_softmax", logits)
            yield same("silu_mul", x, w.expand(count, n))
            yield same("argmax", x)
            yield same("topk", x, min(n, 9))
            if n % 2 == 0:
                yield same("gelu_mul", x, None)
                yield same("gelu_tanh_mul", x, None)


@case
def embedding_and_rotary():
    generator = torch.Generator().manual_seed(5)
    for kind in KINDS:
        ids = torch.randint(0, 50, (4, 3), generator=generator)
        yield same("embedding", ids, draw_values(kind, 3, (50, 70), torch.bfloat16))
        q, k = (
            draw_values(kind, 4, (2, 5, 3, 32)).transpose(1, 2),
            draw_values(kind, 5, (2, 2, 5, 32)),
        )
        yield same(
            "rotary", q, k, draw_values(kind, 6, (2, 5, 24)), draw_values(kind, 7, (2, 5, 24))
        )
    far = torch.randint(-(2**31) + 1, 2**31, (100,), generator=generator)
    near = torch.randint(0, 40000, (100,), generator=generator)
    positions = torch.cat([far, near, torch.arange(10)])[None]
    frequencies = reference.frequencies(10000.0, 64)
    yield kernels.frequencies(10000.0, 64, torch.device("cpu")), frequencies
    for scaling in (1.0, 1.1387):
        yield same("rotary_table", positions, frequencies, scaling)


def attention_positions(mode, B, Tq, Tk, generator):
    if mode == "left":
        kp = torch.arange(Tk)[None].expand(B, Tk) - torch.tensor([0, 7][:B])[:, None]
        kp = kp.clamp(min=-1).contiguous()
        return kp[:, -Tq:].contiguous(), kp
    if mode == "rolled":
        kp = torch.stack([(torch.arange(Tk) + 50 * (b + 1)) % Tk + 100 for b in range(B)])
        kp[0, 5] = -1
        return torch.tensor([[150, 120, 189]] * B)[:, :Tq].contiguous(), kp
    kp = (torch.randperm(Tk, generator=generator) * 1000)[None].expand(B, Tk).contiguous()
    return torch.tensor([[0, 59000, -1, 30500]]), kp


@case
def key_order():
    """Against a stable sort; more keys than are looked at a time."""
    order = importlib.import_module("layercast.kernels.triton.key_order").key_order
    generator = torch.Generator().manual_seed(10)
    ascending = torch.arange(1500) - 3
    gaps = torch.where(torch.rand(1500, generator=generator) < 0.3, -1, torch.arange(1500) + 7)
    shuffled = torch.randperm(1500, generator=generator) - 40
    rows = torch.stack([ascending, gaps, shuffled, torch.full((1500,), -1)]).clamp(min=-1)
    slots, positions, counts, twice = order(rows)
    yield twice, torch.zeros(4, dtype=torch.int32)
    for row, found, at, count in zip(rows, slots, positions, counts, strict=True):
        by_position = row.masked_fill(row < 0, 2**62).argsort(stable=True)[: int(count)]
        yield count, (row >= 0).sum().to(torch.int32)
        yield found[: int(count)], by_position.to(torch.int32)
        yield at[: int(count)], row[by_position]


@case
def attention():
    generator = torch.Generator().manual_seed(6)
    shapes = [
        (2, 4, 2, 1, 70, 16, None, None, "left"),
        (1, 2, 2, 5, 130, 20, None, None, "left"),
        (2, 3, 1, 3, 90, 32, 40, 30.0, "rolled"),
        (1, 2, 1, 4, 60, 8, None, None, "sparse"),
        (2, 2, 1, 2, 5, 8, 3, None, "left"),
    ]
    for processors in (1, 64):  # blocks one after another, and side by side
        importlib.import_module("layercast.kernels.triton.attention").multiprocessors = (
            lambda device, count=processors: count
        )
        for kind in KINDS[:1] if processors == 64 else KINDS[1:2]:
            for B, Hq, Hkv, Tq, Tk, D, window, softcap, mode in shapes:
                dtype = torch.bfloat16 if D == 16 else torch.float32
                q = draw_values(kind, 1, (B, Hq, Tq, D))
                k = draw_values(kind, 2, (B, Hkv, Tk, D), dtype)
                v = draw_values(kind, 3, (B, Hkv, Tk, D), dtype)
                if kind != "bits":
                    q, k = q.clamp(-3, 3), k.clamp(-3, 3)
                qp, kp = attention_positions(mode, B, Tq, Tk, generator)
                empty = (kp < 0)[:, None, :, None]
                k, v = poisoned(k, empty), poisoned(v, empty)
                yield same("attention", q, k, v, qp, kp, D**-0.5, window, softcap)


@case
def paged_attention():
    page, Hq, Hkv, D = 8, 4, 2, 16
    lengths = torch.tensor([70, 9, 33])
    generator = torch.Generator().manual_seed(7)
    for processors in (1, 64):
        importlib.import_module("layercast.kernels.triton.attention").multiprocessors = (
            lambda device, count=processors: count
        )
        for kind in KINDS[:1] if processors == 64 else KINDS[1:2]:
            k, v = (draw_values(kind, s, (60, page, Hkv, D)) for s in (5, 6))
            if kind != "bits":
                k = k.clamp(-3, 3)
            q = draw_values(kind, 7, (7, Hq, D)).clamp(-3, 3)
            table = torch.randperm(60, generator=generator)[:45].reshape(3, 15)
            firsts = torch.tensor([40, 0, 10])
            # Last: sequences without a query, and all queries in one.
            for window, first, starts in (
                (None, None, [0, 1, 5, 7]),
                (20, firsts, [0, 1, 5, 7]),
                (None, None, [0, 0, 0, 7]),
            ):
                cu = torch.tensor(starts)
                arguments = (q, k, v, table, lengths, cu, first, 0.25, window, None)
                results, expected = same("paged_attention", *arguments)
                yield results, expected
                most = int(cu.diff().max())
                yield kernels.paged_attention(*arguments, max_queries=most), expected


@case
def experts():
    E, H, I = 5, 70, 20  # noqa: E741
    generator = torch.Generator().manual_seed(8)
    for kind in KINDS:
        logits = draw_values(kind, 2, (4, 24))
        logits = logits if kind == "bits" else logits.clamp(-9, 9)
        yield same("route", logits, 3, True)
        yield same("route", logits, 3, False)
        for T in (1, 9):
            for activation, dtype in (("silu", torch.bfloat16), ("gelu", torch.float32)):
                x = draw_values(kind, 3, (T, H))
                gate_up = draw_values(kind, 4, (E, 2 * I, H), dtype)
                down = draw_values(kind, 5, (E, H, I), dtype)
                chosen = [torch.randperm(E, generator=generator)[:2] for _ in range(T)]
                weights = draw_values(kind, 6, (T, 2))
                yield same("experts", x, gate_up, down, torch.stack(chosen), weights, activation)


@case
def sample():
    generator = torch.Generator().manual_seed(9)
    for n, scale in ((7, 1.0), (900, 3.0), (900, 30.0)):
        logits = torch.randn(20, n, generator=generator) * scale
        keys = torch.randint(-(2**63), 2**63 - 1, (20,), generator=generator)
        positions = torch.randint(0, 2**40, (20,), generator=generator)
        for top_k, top_p, min_p in (
            (n, 2**32, 0),
            (min(n, 5), 2**32, 0),
            (n, 3000000000, 0),
            (min(n, 50), 4000000000, 2**28),
            (n, 2**32, 2**27),
        ):
            yield same("sample", logits, 0.7, 12345678901234, keys, positions, top_k, top_p, min_p)


@case
def what_has_no_meaning_fails_closed():
    nan, minus_one = torch.full((2,), torch.nan), torch.tensor([-1])
    weight = torch.ones(3, 2)
    for token in (-1, 3):
        yield kernels.embedding(torch.tensor([token]), weight)[0], nan
    frequencies = torch.ones(1, dtype=torch.float64)
    for position in (2**31, -(2**31)):
        cos, _ = kernels.rotary_table(torch.tensor([position]), frequencies, 1.0)
        yield cos[0], nan
    x = torch.ones(1, 2)
    gate_up, down = torch.ones(3, 2, 2), torch.ones(3, 2, 1)
    for chosen in ([0, 0], [0, 3], [-1, 0]):
        indices = torch.tensor([chosen])
        yield kernels.experts(x, gate_up, down, indices, torch.ones(1, 2), "silu")[0], nan
    q, twice = torch.ones(1, 1, 1, 2), torch.tensor([[4, 4]])
    k = torch.ones(1, 1, 2, 2)
    yield kernels.attention(q, k, k, torch.tensor([[5]]), twice, 1.0, None, None).flatten(), nan
    for row in ([torch.nan, 1.0], [-torch.inf, -torch.inf], [torch.inf, 0.0]):
        one = torch.tensor([0])
        yield kernels.sample(torch.tensor([row]), 1.0, 3, one, one, 2, 2**32, 0), minus_one


@case
def packed_sequences_that_do_not_fit_are_nan():
    """Of two sequences with two queries each the first; the other's bits are what they were."""
    attention = importlib.import_module("layercast.kernels.triton.attention")
    q, cache = draw_values("magnitudes", 1, (4, 2, 16)), draw_values("ties", 2, (3, 64, 1, 16))
    table, lengths = torch.tensor([[0, 1], [2, 1]]), torch.tensor([70, 100])
    starts, firsts = torch.tensor([0, 2, 4]), torch.tensor([0, 0])
    fitting = reference.paged_attention(
        q, cache, cache, table, lengths, starts, firsts, 0.25, None, None
    )

    def changed(x, *values):
        return torch.tensor(values + tuple(x.flatten()[len(values) :].tolist())).view_as(x)

    cases = [
        {"table": changed(table, 3)},
        {"table": changed(table, 0, -1)},
        {"lengths": changed(lengths, 129)},
        {"lengths": changed(lengths, 1)},
        {"lengths": changed(lengths, -5)},
        {"firsts": changed(firsts, -1)},
        {"firsts": changed(firsts, 69)},
        {"starts": changed(starts, -1)},
    ]
    for processors in (1, 64):
        attention.multiprocessors = lambda device, count=processors: count
        for case in cases:
            given = {"table": table, "lengths": lengths, "starts": starts, "firsts": firsts} | case
            y = kernels.paged_attention(q, cache, cache, *given.values(), 0.25, None, None)
            yield y[:2], torch.full_like(y[:2], torch.nan)
            yield y[2:], fitting[2:]
        # A window that ends before the page that is missing.
        late = {"table": changed(table, -1), "lengths": changed(lengths, 100)}
        given = {"table": table, "lengths": lengths, "starts": starts, "firsts": firsts} | late
        y = kernels.paged_attention(q, cache, cache, *given.values(), 0.25, 30, None)
        given["table"] = table
        yield y, reference.paged_attention(q, cache, cache, *given.values(), 0.25, 30, None)
    # More queries than the caller says, and queries of no sequence.
    given = (q, cache, cache, table, lengths, torch.tensor([0, 3, 4]), firsts, 0.25, None, None)
    y = kernels.paged_attention(*given, max_queries=1)
    expected = reference.paged_attention(*given)
    yield y[3:], expected[3:]
    yield y.isnan().any(-1).any(-1), torch.tensor([False, True, True, False])
    given = (q, cache, cache, table, lengths, torch.tensor([0, 2, 3]), firsts, 0.25, None, None)
    yield kernels.paged_attention(*given)[3], torch.full((2, 16), torch.nan)


@contextmanager
def numpys_dot():
    """The interpreter's own order of a product, which is not the contract's."""
    interpreter.InterpreterBuilder.create_dot = _NUMPY_DOT
    try:
        yield
    finally:
        interpreter.InterpreterBuilder.create_dot = chain


@case
def control():
    x, w = draw_values("magnitudes", 1, (8, 1024)), draw_values("magnitudes", 2, (64, 1024))
    with numpys_dot():
        yield same("linear", x, w, None)


def verdict(function):
    """How many results were compared, and the first difference."""
    compared = 0
    try:
        for results, expected in function():
            results = results if isinstance(results, tuple) else (results,)
            expected = expected if isinstance(expected, tuple) else (expected,)
            for a, b in zip(results, expected, strict=True):
                assert_bitwise_equal(a, b)
                compared += 1
    except AssertionError as error:
        return {"compared": compared, "difference": str(error)}
    return {"compared": compared, "difference": ""}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    interpreter.InterpreterBuilder.create_dot = chain
    interpreter.InterpreterBuilder.create_fma = fused
    with poisoned_empty():
        for name in sys.argv[1:] or CASES:
            print(json.dumps([name, verdict(CASES[name])]), flush=True)
