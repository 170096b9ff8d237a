"""Contract under test: what is fused is what the model's own code says, and nothing else is."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import pickle

import pytest
import torch
from tiny_models import random_tokens
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.activations import SiLUActivation
from transformers.models.llama import modeling_llama

import layercast
from layercast import ops
from layercast.integrations.transformers.mixtures import experts_of
from layercast.integrations.transformers.rotary_calls import rotate_by_ours
from layercast.modules import FusedGatedMLP, GatedMLP

# Of two layers each; Qwen3-MoE's second one has no experts.
GATED = {"gpt2": [], "gpt_neox": [], "mixtral": [], "qwen3_moe": [GatedMLP]}
GATED |= {"phi3": [FusedGatedMLP] * 2}


@pytest.fixture
def counted(monkeypatch):
    """How often `ops.rotary` was called."""
    calls, rotary = [], ops.rotary
    monkeypatch.setattr(ops, "rotary", lambda *tensors: (calls.append(1), rotary(*tensors))[1])
    return calls


def logits(model, tokens=None):
    with torch.inference_mode():
        return model(input_ids=(random_tokens(9, 1) if tokens is None else tokens)[None]).logits


def networks(model):
    return [type(m) for m in model.modules() if isinstance(m, GatedMLP | FusedGatedMLP)]


def test_gated_networks_and_rotations_are_found(layercast_models, every_architecture, counted):
    model = layercast_models[every_architecture]
    logits(model)
    layers = model.config.num_hidden_layers
    assert networks(model) == GATED.get(every_architecture, [GatedMLP] * layers)
    # SmolLM3 leaves out the rotation in some layers, GPT-2 has none.
    rotated = getattr(model.config, "no_rope_layers", [every_architecture != "gpt2"] * layers)
    assert len(counted) == sum(map(bool, rotated))


def test_a_stock_model_keeps_its_own_rotation(folder, counted):
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ours = layercast.load(folder)
    counted.clear()  # of those that were tried on numbers
    before = type(stock.model.layers[0].self_attn)
    logits(stock)
    assert not counted
    logits(ours)
    assert len(counted) == ours.config.num_hidden_layers
    assert before is modeling_llama.LlamaAttention
    assert isinstance(ours.model.layers[0].self_attn, before)


def test_positions_that_a_batch_shares_and_rows_of_their_own_give_the_same_bits(folder):
    model = layercast.load(folder)
    tokens = torch.stack([random_tokens(9, seed) for seed in (1, 2, 3)])
    each = torch.arange(9).expand(3, -1)
    with torch.inference_mode():
        shared = model(input_ids=tokens, position_ids=each[:1]).logits
        own = model(input_ids=tokens, position_ids=each.contiguous()).logits
    assert torch.equal(shared, own)


def test_copies_rotate_likewise(folder, counted):
    model = layercast.load(folder)
    expected = logits(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        counted.clear()
        assert torch.equal(logits(other), expected)
        assert len(counted) == model.config.num_hidden_layers


def _interleaved(q, k, cos, sin, unsqueeze_dim=1):
    return tuple(
        x * cos.unsqueeze(1)
        + torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2) * sin.unsqueeze(1)
        for x in (q, k)
    )


def _rounded(q, k, cos, sin, unsqueeze_dim=1):
    return tuple(x.bfloat16().float() for x in stock_rotation(q, k, cos, sin))


stock_rotation = modeling_llama.apply_rotary_pos_emb


@pytest.mark.parametrize("rotation", [_interleaved, _rounded])
def test_another_rotation_stays(folder, monkeypatch, counted, rotation):
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", rotation)
    model = layercast.load(folder)
    assert type(model.model.layers[0].self_attn) is modeling_llama.LlamaAttention
    counted.clear()  # of those that were tried on numbers
    logits(model)
    assert not counted


def _decorated(forward, calls):
    @functools.wraps(forward)
    def counting(*args, **kwargs):
        calls.append(1)
        return forward(*args, **kwargs)

    return counting


class _Holder:
    """A decorator that is no function: what it holds is out of reach."""

    def __init__(self, forward, calls):
        functools.update_wrapper(self, forward)
        self._calls = calls

    def __get__(self, instance, owner=None):
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args, **kwargs):
        self._calls.append(1)
        return self.__wrapped__(*args, **kwargs)


@pytest.mark.parametrize("reachable", [True, False])
def test_decorators_of_a_forward_are_kept(folder, monkeypatch, counted, reachable):
    calls, attention = [], modeling_llama.LlamaAttention
    expected = logits(layercast.load(folder))
    decorator = _decorated if reachable else _Holder
    monkeypatch.setattr(attention, "forward", decorator(attention.forward, calls))
    model = layercast.load(folder)
    assert (type(model.model.layers[0].self_attn) is attention) is not reachable
    counted.clear()
    assert torch.equal(logits(model), expected)
    layers = model.config.num_hidden_layers
    assert (len(counted), len(calls)) == (layers if reachable else 0, layers)


def test_a_call_of_another_form_goes_where_it_was_meant_to_go(folder, counted):
    attention = layercast.load(folder).model.layers[0].self_attn
    rotated = inspect.unwrap(type(attention).forward).__globals__["apply_rotary_pos_emb"]
    counted.clear()
    q, k, cos, sin = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 3, 8), *torch.randn(2, 1, 3, 8)
    expected = stock_rotation(q, k, cos, sin)
    for got in (rotated(q=q, k=k, cos=cos, sin=sin), rotated(q, k, cos, sin, unsqueeze_dim=1)):
        assert all(map(torch.equal, got, expected))
    assert not counted


def test_a_module_that_rotates_nothing_stays():
    norm = nn.LayerNorm(4)
    rotate_by_ours(norm)
    assert type(norm) is nn.LayerNorm


def _added(self, x):
    return self.down_proj(self.act_fn(self.gate_proj(x)) + self.up_proj(x))


def _swapped(self, x):
    return self.down_proj(self.act_fn(self.up_proj(x)) * self.gate_proj(x))


def _bounded(limit):
    def forward(self, x):
        gate, up = self.gate_proj(x).clamp(max=limit), self.up_proj(x).clamp(-limit, limit)
        return self.down_proj(self.act_fn(gate) * up)

    return forward


def _dropping(self, x):
    y = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
    return nn.functional.dropout(y, 0.5, self.training)


def test_a_network_that_drops_in_training_alone_is_taken(folder, monkeypatch):
    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", _dropping)
    torch.manual_seed(5)
    expected = torch.get_rng_state()
    assert len(networks(layercast.load(folder))) == 2
    assert torch.equal(torch.get_rng_state(), expected)


@pytest.mark.parametrize(
    "forward", [_added, _swapped, *map(_bounded, (7.0, 16.0, 100.0, 1e3, 1e5))]
)
def test_another_formula_is_not_taken_by_its_name(folder, monkeypatch, forward):
    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", forward)
    model = layercast.load(folder)
    assert networks(model) == []
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(logits(model), logits(stock), rtol=1e-3, atol=1e-3)


class _BoundedExperts(nn.Module):
    """Experts of Mixtral's form, their gate bounded by `limit`."""

    def __init__(self, limit):
        super().__init__()
        self.act_fn, self.limit = SiLUActivation(), limit
        self.gate_up_proj = nn.Parameter(torch.empty(4, 2 * 24, 32))
        self.down_proj = nn.Parameter(torch.empty(4, 32, 24))

    def forward(self, rows, indices, weights):
        y = torch.zeros_like(rows)
        for e in range(len(self.down_proj)):
            gate, up = (rows @ self.gate_up_proj[e].T).chunk(2, -1)
            out = (self.act_fn(gate.clamp(max=self.limit)) * up) @ self.down_proj[e].T
            y += out * (weights * (indices == e)).sum(-1, keepdim=True)
        return y


@pytest.mark.parametrize(("limit", "taken"), [(16.0, False), (1e5, False), (math.inf, True)])
def test_experts_that_bound_their_gate_are_not_taken(limit, taken):
    dtypes = {"e.gate_up_proj": torch.bfloat16, "e.down_proj": torch.bfloat16}
    assert (experts_of(_BoundedExperts(limit), "e", dtypes) is not None) is taken


def test_a_network_in_which_an_activation_is_left_out_stays(folder):
    options = layercast.LayerCastConfig(modules_to_not_convert=["mlp.act_fn"])
    assert networks(layercast.load(folder, quantization_config=options)) == []
