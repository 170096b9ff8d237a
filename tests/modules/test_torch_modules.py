"""Contract under test: the modules are the operations, with weights whose dtype cannot drift."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from layercast import ops
from layercast.errors import GuaranteeError, UnsupportedError
from layercast.modules import (
    GELU,
    ColumnParallelLinear,
    Embedding,
    Experts,
    FusedGatedMLP,
    GatedMLP,
    GELUTanh,
    LayerNorm,
    Linear,
    Ranks,
    RMSNorm,
    RopeFrequencies,
    RotaryEmbedding,
    Router,
    RowParallelLinear,
    SiLU,
    Tanh,
    TransposedLinear,
)

DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def bits(x):
    return x.view(torch.int32)


def filled(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


@pytest.fixture
def x():
    return torch.randn((2, 3, 96), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_modules_are_the_operations(x, dtype):
    linear = filled(Linear(96, 40, weight_dtype=dtype, bias_dtype=torch.float32))
    expected = ops.linear(x, linear.weight, linear.bias)
    assert torch.equal(bits(linear(x)), bits(expected))
    headless = filled(Linear(96, 40, weight_dtype=dtype))
    assert headless.bias is None
    assert torch.equal(bits(headless(x)), bits(ops.linear(x, headless.weight)))
    norm = filled(RMSNorm(96, eps=1e-6, weight_dtype=dtype))
    assert torch.equal(bits(norm(x)), bits(ops.rms_norm(x, norm.weight, eps=1e-6)))
    offset = filled(RMSNorm(96, eps=1e-6, weight_dtype=dtype, unit_offset=True))
    assert torch.equal(
        bits(offset(x)), bits(ops.rms_norm(x, offset.weight, eps=1e-6, unit_offset=True))
    )
    table = filled(Embedding(10, 96, weight_dtype=dtype))
    ids = torch.tensor([[3, 9], [0, 3]])
    assert torch.equal(bits(table(ids)), bits(table.weight[ids].float()))
    scaled = filled(Embedding(10, 96, weight_dtype=dtype, scale=59.867))
    # The factor is a float32, whatever the rows are stored in.
    factor = torch.tensor(59.867)
    assert torch.equal(bits(scaled(ids)), bits(scaled.weight[ids].float() * factor))
    layer_norm = filled(LayerNorm(96, eps=1e-5, weight_dtype=dtype, bias_dtype=dtype))
    expected = ops.layer_norm(x, layer_norm.weight, layer_norm.bias, eps=1e-5)
    assert torch.equal(bits(layer_norm(x)), bits(expected))
    stored_in_out = filled(TransposedLinear(96, 40, weight_dtype=dtype, bias_dtype=dtype))
    expected = ops.linear(x, stored_in_out.weight.t().contiguous(), stored_in_out.bias)
    assert torch.equal(bits(stored_in_out(x)), bits(expected))


def test_modules_without_parameters_are_the_operations(x):
    for module, operation in (
        (SiLU(), ops.silu),
        (GELU(), ops.gelu),
        (GELUTanh(), ops.gelu_tanh),
        (Tanh(), ops.tanh),
    ):
        assert torch.equal(bits(module(x)), bits(operation(x)))
    plain = LayerNorm(96, eps=1e-5, weight_dtype=None, bias_dtype=None)
    assert torch.equal(bits(plain(x)), bits(ops.layer_norm(x, eps=1e-5)))
    weightless = RMSNorm(96, eps=1e-6, weight_dtype=None)
    assert torch.equal(bits(weightless(x)), bits(ops.rms_norm(x, torch.ones(96), eps=1e-6)))


@pytest.mark.parametrize("activation", [SiLU(), GELU(), GELUTanh()])
def test_gated_networks_are_the_written_formula(x, activation):
    gate_up = filled(Linear(96, 2 * 40, weight_dtype=torch.bfloat16))
    down = filled(Linear(40, 96, weight_dtype=torch.bfloat16))
    gate, up = gate_up(x).chunk(2, -1)
    expected = down(activation(gate) * up)
    fused = FusedGatedMLP(gate_up, down, activation)
    assert torch.equal(bits(fused(x)), bits(expected))
    halves = [Linear(96, 40, weight_dtype=torch.bfloat16) for _ in range(2)]
    for half, weight in zip(halves, gate_up.weight.chunk(2), strict=True):
        half.weight.copy_(weight)
    assert torch.equal(bits(GatedMLP(*halves, down, activation)(x)), bits(expected))
    # The factors in each other's place give other bits: it matters which one is activated.
    assert not torch.equal(bits(GatedMLP(*halves[::-1], down, activation)(x)), bits(expected))


@pytest.mark.parametrize("renormalize", [True, False])
def test_router_and_experts_are_the_operations(x, renormalize):
    router = filled(Router(5, 96, top_k=2, renormalize=renormalize, weight_dtype=torch.bfloat16))
    rows = x.reshape(-1, 96)
    logits, weights, chosen = router(x)
    assert torch.equal(bits(logits), bits(ops.linear(rows, router.weight)))
    expected, indices = ops.route(logits, 2, renormalize=renormalize)
    assert torch.equal(bits(weights), bits(expected))
    assert torch.equal(chosen, indices)
    dtypes = {"gate_up_dtype": torch.float16, "down_dtype": torch.bfloat16}
    experts = filled(Experts(5, 96, 24, activation="gelu_tanh", **dtypes))
    expected = ops.experts(
        rows, experts.gate_up_proj, experts.down_proj, chosen, weights, activation="gelu_tanh"
    )
    assert torch.equal(bits(experts(rows, chosen, weights)), bits(expected))


def test_layers_of_several_ranks_say_so():
    whole = Linear(16, 8, weight_dtype=torch.bfloat16)
    split = RowParallelLinear(whole, splits=True)
    shown = "in_features=16, out_features=8, bias=False, splits=True"
    assert split.extra_repr() == shown
    split.hold(Ranks("group", rank=1, size=2))
    assert split.extra_repr() == f"{shown}, rank 1 of 2"
    assert "gathers=False" in repr(ColumnParallelLinear(whole, gathers=False))


@pytest.mark.parametrize("dtype", DTYPES)
def test_modules_refuse_casts_and_keep_their_weights(dtype):
    modules = [
        Linear(8, 4, weight_dtype=dtype, bias_dtype=dtype),
        Embedding(4, 8, weight_dtype=dtype),
        RMSNorm(8, eps=1e-6, weight_dtype=dtype),
        LayerNorm(8, eps=1e-6, weight_dtype=dtype, bias_dtype=dtype),
        TransposedLinear(8, 4, weight_dtype=dtype, bias_dtype=dtype),
        Router(4, 8, top_k=2, renormalize=True, weight_dtype=dtype),
        Experts(4, 8, 6, activation="silu", gate_up_dtype=dtype, down_dtype=dtype),
    ]
    for module in modules:
        for other in {torch.float64, *DTYPES} - {dtype}:
            with pytest.raises(GuaranteeError, match="weight_dtype="):
                nn.Sequential(module).to(other)
        assert module.to(dtype).to("cpu") is module
        assert {parameter.dtype for parameter in module.parameters()} == {dtype}
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_a_bias_may_be_stored_in_another_dtype_than_the_weight():
    module = Linear(8, 4, weight_dtype=torch.bfloat16, bias_dtype=torch.float16)
    assert (module.weight.dtype, module.bias.dtype) == (torch.bfloat16, torch.float16)


def test_stock_application_of_the_rotary_table_is_the_operation():
    # Models keep their own apply_rotary_pos_emb: two products and a sum, each rounded once.
    generator = torch.Generator().manual_seed(2)
    q, k = torch.randn((2, 4, 70, 32), generator=generator), torch.randn(2, 2, 70, 32)
    positions = torch.arange(70).expand(2, -1) + torch.tensor([[0], [9000]])
    cos, sin = RotaryEmbedding(RopeFrequencies(32, 1e4))(q, positions)
    stock = apply_rotary_pos_emb(q, k, cos, sin)
    for ours, theirs in zip(ops.rotary(q, k, cos, sin), stock, strict=True):
        assert torch.equal(bits(ours), bits(theirs.contiguous()))


def test_rotary_tables_by_layer_type_and_in_neighbouring_pairs():
    positions = torch.arange(5)[None]
    by_type = {"local": RopeFrequencies(8, 1e4), "global": RopeFrequencies(8, 1e6)}
    rotary = RotaryEmbedding(by_type, interleaved=True)
    for layer_type, frequencies in by_type.items():
        halves = RotaryEmbedding(frequencies)(positions, positions)
        pairs = rotary(positions, positions, layer_type)
        for half, pair in zip(halves, pairs, strict=True):
            assert torch.equal(bits(half[..., :4]), bits(pair[..., ::2].contiguous()))
            assert torch.equal(bits(half[..., :4]), bits(pair[..., 1::2].contiguous()))


def test_positions_beyond_the_length_of_a_scaling_are_refused():
    rotary = RotaryEmbedding(RopeFrequencies(8, 1e4, position_limit=6))
    rotary(torch.zeros(1), torch.arange(6)[None])
    with pytest.raises(UnsupportedError, match="below 6"):
        rotary(torch.zeros(1), torch.arange(7)[None])


def test_modules_describe_themselves():
    assert "in_features=8" in repr(Linear(8, 4, weight_dtype=torch.bfloat16))
    assert "unit_offset" in repr(
        RMSNorm(8, eps=1e-6, weight_dtype=torch.bfloat16, unit_offset=True)
    )
    assert "head_dim=32" in repr(RotaryEmbedding(RopeFrequencies(32, 1e4)))
