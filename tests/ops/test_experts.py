"""Contract under test: a token's experts and their sum depend on that token alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layercast import ops
from layercast.errors import DtypeError, ShapeError, ValueRangeError
from layercast.kernels import reference
from layercast.testing import assert_bitwise_equal, poisoned_empty
from layercast.testing.strategies import draw_values, kinds, seeds, storage_dtypes

NAN, INFINITY = float("nan"), float("inf")


def layer(E=6, H=40, I=24, dtype=torch.bfloat16, seed=1, kind="magnitudes"):  # noqa: E741
    return draw_values(kind, seed, (E, 2 * I, H), dtype), draw_values(
        kind, seed + 1, (E, H, I), dtype
    )


def routed(T, E=6, top_k=2, seed=3):
    weights, indices = ops.route(
        draw_values("magnitudes", seed, (T, E)).clamp(-3, 3), top_k, renormalize=True
    )
    return indices, weights


@given(
    T=st.integers(0, 6),
    E=st.sampled_from([1, 2, 7, 60, 129, 300]),
    share=st.floats(0, 1),
    renormalize=st.booleans(),
    kind=kinds(),
    seed=seeds(),
)
def test_route_equals_the_reference(T, E, share, renormalize, kind, seed):
    logits = draw_values(kind, seed, (T, E))
    logits = logits if kind == "bits" else logits.clamp(-20, 20)
    top_k = max(1, int(share * E))
    with poisoned_empty():
        actual = ops.route(logits, top_k, renormalize=renormalize)
    for a, b in zip(actual, reference.route(logits, top_k, renormalize), strict=True):
        assert_bitwise_equal(a, b)


@given(
    T=st.integers(0, 7),
    E=st.integers(1, 5),
    H=st.sampled_from([1, 8, 33, 70]),
    I=st.sampled_from([1, 5, 32, 65]),
    top_k=st.integers(1, 5),
    activation=st.sampled_from(["silu", "gelu", "gelu_tanh"]),
    dtype=storage_dtypes(),
    kind=kinds(),
    seed=seeds(),
)
def test_experts_equal_the_reference(T, E, H, I, top_k, activation, dtype, kind, seed):  # noqa: E741
    x = draw_values(kind, seed, (T, H))
    gate_up, down = layer(E, H, I, dtype, seed % 1000, kind)
    indices, weights = routed(T, E, min(top_k, E), seed % 1000)
    # Any order of a token's experts.
    order = torch.randperm(min(top_k, E), generator=torch.Generator().manual_seed(seed))
    indices, weights = indices[:, order], weights[:, order]
    with poisoned_empty():
        actual = ops.experts(x, gate_up, down, indices, weights, activation=activation)
    assert_bitwise_equal(actual, reference.experts(x, gate_up, down, indices, weights, activation))


def by_hand(x, gate_up, down, indices, weights, experts_of):
    """The sum over experts by public operations, in the order that `experts_of` gives."""
    rows = []
    for t in range(len(x)):
        y = torch.zeros(1, x.shape[-1])
        for j in experts_of(indices[t]):
            e = indices[t, j]
            inner = ops.silu_mul(ops.linear(x[t : t + 1], gate_up[e]))
            y = y + (weights[t, j] * ops.linear(inner, down[e]))
        rows.append(y)
    return torch.cat(rows)


def test_experts_are_summed_in_ascending_order():
    x, (gate_up, down) = draw_values("magnitudes", 5, (20, 40)), layer()
    indices, weights = routed(20, top_k=4)
    actual = ops.experts(x, gate_up, down, indices, weights, activation="silu")
    assert_bitwise_equal(actual, by_hand(x, gate_up, down, indices, weights, torch.argsort))
    # The control: in the order of the router's weights, other bits come out.
    by_weight = by_hand(x, gate_up, down, indices, weights, lambda row: range(len(row)))
    with pytest.raises(AssertionError, match="elements differ"):
        assert_bitwise_equal(by_weight, actual)


def assert_batch_invariant(experts, x, indices, weights):
    whole = experts(x, indices, weights)
    for size in (1, 2, 7, 16):
        for start in range(0, len(x), size):
            part = slice(start, start + size)
            assert_bitwise_equal(experts(x[part], indices[part], weights[part]), whole[part])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    assert_bitwise_equal(experts(x[order], indices[order], weights[order]), whole[order])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_experts_are_batch_invariant(dtype):
    gate_up, down = layer(H=130, I=70, dtype=dtype)
    assert_batch_invariant(
        lambda x, i, w: ops.experts(x, gate_up, down, i, w, activation="silu"),
        draw_values("magnitudes", 7, (33, 130)),
        *routed(33),
    )


def test_a_library_product_per_expert_is_caught():
    """The control: stock float32 products, whose order follows the number of rows."""
    gate_up, down = (w.float() for w in layer(E=2, H=1000, I=500))

    def stock(x, indices, weights):
        y = torch.zeros_like(x)
        for e in range(2):
            token, at = (indices == e).nonzero(as_tuple=True)
            inner = ops.silu_mul(x[token] @ gate_up[e].T)
            y[token] += weights[token, at, None] * (inner @ down[e].T)
        return y

    with pytest.raises(AssertionError, match="elements differ"):
        assert_batch_invariant(stock, draw_values("magnitudes", 7, (33, 1000)), *routed(33, E=2))


def test_a_token_does_not_see_its_neighbours():
    x, (gate_up, down) = draw_values("magnitudes", 5, (9, 40)), layer()
    indices, weights = routed(9)
    alone = ops.experts(x[4:5], gate_up, down, indices[4:5], weights[4:5], activation="gelu_tanh")
    x[:4], x[5:], weights[:4], weights[5:] = NAN, INFINITY, NAN, INFINITY
    whole = ops.experts(x, gate_up, down, indices, weights, activation="gelu_tanh")
    assert_bitwise_equal(whole[4:5], alone)


def test_an_unused_expert_is_never_read():
    x, (gate_up, down) = draw_values("magnitudes", 5, (3, 40)), layer()
    indices, weights = torch.tensor([[0, 4], [4, 2], [2, 0]]), torch.rand(3, 2)
    expected = ops.experts(x, gate_up, down, indices, weights, activation="silu")
    unused = torch.tensor([1, 3, 5])
    gate_up[unused], down[unused] = NAN, NAN
    assert_bitwise_equal(
        ops.experts(x, gate_up, down, indices, weights, activation="silu"), expected
    )
    # The control: the poison shows where it is read.
    gate_up[4] = NAN
    poisoned = ops.experts(x, gate_up, down, indices, weights, activation="silu")
    assert poisoned[:2].isnan().all()
    assert_bitwise_equal(poisoned[2], expected[2])


def test_a_weight_of_zero_still_counts():
    """NaN times +0 is NaN: nothing is skipped because of a value."""
    x, (gate_up, down) = draw_values("magnitudes", 5, (1, 40)), layer()
    down[3] = NAN
    y = ops.experts(x, gate_up, down, torch.tensor([[3]]), torch.zeros(1, 1), activation="silu")
    assert (y.view(torch.int32) == 0x7FC00000).all()


def test_equal_experts_go_to_the_lower_index():
    weights, indices = ops.route(torch.zeros(2, 8), 3, renormalize=True)
    assert indices.tolist() == [[0, 1, 2]] * 2
    # 1/8 + 1/8 + 1/8 = 3/8 exactly; a third of it rounds once.
    assert_bitwise_equal(weights, torch.full((2, 3), 1 / 3))
    weights, indices = ops.route(torch.tensor([[1.0, 2.0, 1.0, 2.0]]), 3, renormalize=False)
    assert indices.tolist() == [[1, 3, 0]]
    assert_bitwise_equal(weights, ops.softmax(torch.tensor([[1.0, 2.0, 1.0, 2.0]]))[:, indices[0]])


def test_renormalising_is_a_chain_in_the_order_of_the_experts_chosen():
    logits = torch.randn(200, 64, generator=torch.Generator().manual_seed(9))
    plain, _ = ops.route(logits, 7, renormalize=False)
    total = plain[:, 0]
    for j in range(1, 7):
        total = total + plain[:, j]
    expected = plain / total[:, None]
    assert_bitwise_equal(ops.route(logits, 7, renormalize=True)[0], expected)
    # The control: from the smallest up, some sums round otherwise.
    backwards = plain[:, 6]
    for j in range(5, -1, -1):
        backwards = backwards + plain[:, j]
    with pytest.raises(AssertionError, match="elements differ"):
        assert_bitwise_equal(plain / backwards[:, None], expected)


@pytest.mark.parametrize("bad", [NAN, INFINITY])
def test_a_row_without_a_distribution_is_nan_and_stays_alone(bad):
    logits = draw_values("magnitudes", 9, (3, 8)).clamp(-4, 4)
    alone = ops.route(logits[2:], 2, renormalize=True)
    logits[1, 5] = bad
    weights, indices = ops.route(logits, 2, renormalize=True)
    assert (weights[1].view(torch.int32) == 0x7FC00000).all()
    assert ((indices[1] >= 0) & (indices[1] < 8)).all()
    for whole, part in ((weights, alone[0]), (indices, alone[1])):
        assert_bitwise_equal(whole[2:], part)


def stock_block(name):
    """A mixture-of-experts block of transformers: 6 experts, 3 of them per token."""
    if name == "mixtral":
        from transformers.models.mixtral import modeling_mixtral as modeling

        sizes = {"intermediate_size": 40, "num_local_experts": 6}
        block = modeling.MixtralSparseMoeBlock(
            modeling.MixtralConfig(hidden_size=48, num_experts_per_tok=3, **sizes)
        )
    else:
        from transformers.models.qwen3_moe import modeling_qwen3_moe as modeling

        sizes = {"moe_intermediate_size": 40, "num_experts": 6, "norm_topk_prob": False}
        block = modeling.Qwen3MoeSparseMoeBlock(
            modeling.Qwen3MoeConfig(hidden_size=48, num_experts_per_tok=3, **sizes)
        )
    torch.manual_seed(0)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return block.requires_grad_(False)


def rounding_bound(x, router, gate_up, down, indices, weights):
    """How far float32 may err from the exact sum over experts, to first order in u = 2**-24.

    A dot product of n terms errs by at most n u times the sum of magnitudes. With G and U the sums
    of magnitudes of gate and up, |silu(g)| <= |g| <= G and |silu'| < 1.1, so that `silu(gate) * up`
    errs by (2.1 H + 4) u G U. A router's weight errs, relatively, by twice its logits' error plus
    a rounding for each expert and each step of softmax and renormalisation.
    """
    u, (T, H), (E, _, I) = 2.0**-24, x.shape, down.shape  # noqa: E741
    x, router, gate_up, down = (t.double().abs() for t in (x, router, gate_up, down))
    logits = H * u * (x @ router.T).amax()
    relative = (2.1 * H + 4 + I + 2 * E + 12) * u + 2 * logits
    total = torch.zeros(T, H, dtype=torch.float64)
    for t in range(T):
        for e, weight in zip(indices[t], weights[t].double(), strict=True):
            gate, up = (gate_up[e] @ x[t]).chunk(2)
            total[t] += weight * (down[e] @ (gate * up))
    return relative * total


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_the_formula_is_that_of_transformers(name):
    block, x = stock_block(name), torch.randn(20, 48, generator=torch.Generator().manual_seed(1))
    router, (gate_up, down) = block.gate.weight.clone(), block.experts.parameters()
    gate_up, down = gate_up.clone(), down.clone()

    def run(renormalize):
        weights, indices = ops.route(ops.linear(x, router), 3, renormalize=renormalize)
        bound = rounding_bound(x, router, gate_up, down, indices, weights)
        return ops.experts(x, gate_up, down, indices, weights, activation="silu").double(), bound

    exact = block.double()(x.double()[None])[0]
    y, bound = run(renormalize=name == "mixtral")
    assert ((y - exact).abs() <= bound).all()
    # The control: with the other model's normalisation the sum lies outside the bound.
    y, bound = run(renormalize=name != "mixtral")
    assert ((y - exact).abs() > bound).any(dim=-1).all()


def test_strided_weights_are_read_where_they_lie():
    gate_up, down = layer(E=6, H=40, I=24)
    x, (indices, weights) = draw_values("magnitudes", 5, (5, 40)), routed(5, E=3)
    expected = ops.experts(
        x, gate_up[::2].clone(), down[::2].clone(), indices, weights, activation="silu"
    )
    assert_bitwise_equal(
        ops.experts(x, gate_up[::2], down[::2], indices, weights, activation="silu"), expected
    )
    transposed = down[::2].transpose(1, 2).contiguous().transpose(1, 2)
    leading = x.repeat(2, 1).view(2, 5, 40)
    y = ops.experts(
        leading,
        gate_up[::2],
        transposed,
        indices.expand(2, 5, 2),
        weights.expand(2, 5, 2),
        activation="silu",
    )
    assert_bitwise_equal(y, expected.expand(2, 5, 40).contiguous())


def test_wrong_arguments_are_named():
    x, (gate_up, down) = torch.ones(2, 40), layer()
    indices, weights = torch.tensor([[0, 1], [1, 2]]), torch.ones(2, 2)
    good = {"gate_up": gate_up, "down": down, "indices": indices, "weights": weights}
    for changed, error, words in (
        ({"gate_up": gate_up[:, :-1]}, ShapeError, r"`gate_up` must have shape \(6, 48, 40\)"),
        ({"gate_up": gate_up[0]}, ShapeError, r"`gate_up` must have shape \(E, 2 I, H\)"),
        ({"down": down.int()}, DtypeError, r"`down` must be bfloat16"),
        ({"indices": indices[:1]}, ShapeError, r"`indices` must have shape"),
        ({"indices": indices.int()}, DtypeError, r"`indices` must be torch.int64"),
        ({"indices": indices + 4}, ValueRangeError, r"`indices` must lie in 0..5, got .* 4 to 6"),
        ({"indices": indices - 1}, ValueRangeError, r"`indices` must lie in 0..5, got .* -1 to 1"),
        ({"indices": indices * 0}, ValueRangeError, r"`indices` must name an expert once"),
        ({"weights": weights[:, :1]}, ShapeError, r"`weights` must have the shape of `indices`"),
        ({"activation": "relu"}, ValueRangeError, r"`activation` must be one of silu, gelu"),
    ):
        arguments = {"activation": "silu", **good, **changed}
        with pytest.raises(error, match="experts: " + words):
            ops.experts(x, **arguments)
    with pytest.raises(ShapeError, match="experts: `x` must have the 40 features"):
        ops.experts(x[:, :3], **good, activation="silu")
    for top_k in (0, 7):
        with pytest.raises(ValueRangeError, match=r"route: `top_k` must lie within 1..6"):
            ops.route(torch.ones(2, 6), top_k, renormalize=True)


def test_empty_batches():
    gate_up, down = layer()
    y = ops.experts(
        torch.ones(0, 40),
        gate_up,
        down,
        torch.zeros(0, 2, dtype=torch.int64),
        torch.ones(0, 2),
        activation="silu",
    )
    assert y.shape == (0, 40)
