"""Contract under test: a model is taken for what it computes; the rest is refused or named."""

from __future__ import annotations

import warnings

import pytest
import torch
from forward_variants import SEQUENCES, alone, same_bits
from refusals import refusal
from tiny_models import CONFIGS, LONGROPE, config, save_checkpoint
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BloomConfig,
    CohereConfig,
    Gemma3Config,
    T5Config,
)

import layercast
from layercast import LayerCastConfig
from layercast.errors import CoverageWarning, LayercastError, UnsupportedError, ValueRangeError
from layercast.integrations.transformers.architectures import TESTED, stock_modules

TOKENS = SEQUENCES[2]


def load_named(folder, named):
    """Load a model that is not covered whole: warns, and `require` refuses it."""
    with pytest.warns(CoverageWarning, match="layercast.audit") as caught:
        model = layercast.load(folder)
    assert named in str(caught[0].message)
    with pytest.warns(CoverageWarning):
        message = refusal(LayercastError, lambda: layercast.load(folder, require="bitwise"))
    assert f"`{named}`" in message
    return model


def test_every_tested_architecture_is_run_by_these_tests():
    assert {config(name).model_type for name in CONFIGS} == set(TESTED)


def test_nothing_of_a_tested_architecture_stays_stock(every_architecture, checkpoints):
    with warnings.catch_warnings():
        warnings.simplefilter("error", CoverageWarning)
        model = layercast.load(checkpoints[every_architecture], require="bitwise")
    assert stock_modules(model) == {}


@pytest.mark.parametrize(
    ("refused", "says"),
    [
        (T5Config(), "decoder-only"),
        (BloomConfig(), "attention interface"),
        (Gemma3Config(), "multimodal"),
    ],
)
def test_models_that_cannot_be_taken_are_refused_before_their_weights_are_read(
    tmp_path, refused, says
):
    refused.save_pretrained(tmp_path)
    message = refusal(UnsupportedError, lambda: layercast.load(tmp_path))
    assert f"'{refused.model_type}'" in message
    assert says in message


def test_other_heads(folder):
    def load():
        AutoModelForSequenceClassification.from_pretrained(
            folder, quantization_config=LayerCastConfig()
        )

    assert "LlamaForSequenceClassification" in refusal(UnsupportedError, load)


def test_an_architecture_that_nobody_has_read_runs_and_claims_nothing(tmp_path):
    # Cohere: a norm and a rotary layout of its own, and a factor of the logits.
    torch.manual_seed(0)
    shape = {"vocab_size": 131, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    stock = AutoModelForCausalLM.from_config(CohereConfig(**shape, **heads, **special))
    stock.save_pretrained(tmp_path)
    with pytest.warns(CoverageWarning, match="'cohere' is not among the tested architectures"):
        model = layercast.load(tmp_path)
    assert stock_modules(model) == {}
    ours, theirs = alone(model, TOKENS), alone(stock.eval(), TOKENS)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "tanh"])
def test_activations_of_the_contract(tmp_path, activation):
    folder = save_checkpoint(tmp_path, "llama", hidden_act=activation)
    model = layercast.load(folder, require="bitwise")
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ours, theirs = alone(model, TOKENS), alone(stock, TOKENS)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))


def test_other_activations_are_named(tmp_path):
    folder = save_checkpoint(tmp_path, "llama", hidden_act="quick_gelu")
    load_named(folder, "model.layers.0.mlp.act_fn")


def test_a_module_planted_in_the_model_is_named(folder, monkeypatch):
    from transformers.models.llama import modeling_llama

    class Doubled(nn.Module):
        def forward(self, x):
            return x + x

    init = modeling_llama.LlamaMLP.__init__
    monkeypatch.setattr(
        modeling_llama.LlamaMLP,
        "__init__",
        lambda self, config: (init(self, config), setattr(self, "extra", Doubled()))[0],
    )
    load_named(folder, "model.layers.0.mlp.extra")


@pytest.mark.parametrize("eps", [1e-6, 1e-5])
def test_a_norm_of_another_formula_is_not_taken_by_its_name(folder, monkeypatch, eps):
    from transformers.models.llama import modeling_llama

    stock = modeling_llama.LlamaRMSNorm.forward

    def shifted(self, x):
        # The smallest lie: another epsilon than the module says.
        self.variance_epsilon, said = eps, self.variance_epsilon
        try:
            return stock(self, x)
        finally:
            self.variance_epsilon = said

    monkeypatch.setattr(modeling_llama.LlamaRMSNorm, "forward", shifted)
    if eps == config("llama").rms_norm_eps:
        assert stock_modules(layercast.load(folder)) == {}
    else:
        load_named(folder, "model.layers.0.input_layernorm")


DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
LONG = LONGROPE | {"short_factor": [1.0] * 16, "long_factor": [2.0] * 16, "factor": 4.0}


@pytest.mark.parametrize("rope", [DYNAMIC, LONG], ids=["dynamic", "longrope"])
def test_rope_that_looks_at_the_batch_is_fixed_at_load(tmp_path, rope):
    folder = save_checkpoint(tmp_path, "llama", rope_parameters=rope, max_position_embeddings=96)
    model = layercast.load(folder)
    fits, beyond = (torch.arange(length)[None] % 131 for length in (96, 97))
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert_close(alone(model, fits[0]), alone(stock, fits[0]))
    message = refusal(UnsupportedError, lambda: alone(model, beyond[0]))
    assert "below 96" in message
    assert "context_length" in message
    extended = layercast.load(folder, quantization_config=LayerCastConfig(context_length=128))
    # Fixed for the longer context, a short sequence is not what the shorter context gave,
    # and is what transformers computes when a neighbour is that long.
    assert not same_bits(alone(extended, fits[0]), alone(model, fits[0]))
    neighbours = torch.stack([torch.arange(128) % 131, torch.arange(128) % 131])
    with torch.inference_mode():
        longest = stock(neighbours).logits[0]
    assert_close(alone(extended, neighbours[0]), longest)
    assert same_bits(alone(extended, neighbours[0])[:96], alone(extended, fits[0]))
    refusal(UnsupportedError, lambda: alone(extended, torch.arange(129) % 131))


def test_generation_crosses_the_original_length_of_a_longer_context(checkpoints):
    # Phi-3's own code drops the cache there, for its frequencies would change.
    options = LayerCastConfig(context_length=128)
    model = layercast.load(checkpoints["phi3"], quantization_config=options)
    prompt = 1 + torch.arange(90)[None]
    out = model.generate(
        prompt, max_new_tokens=16, do_sample=False, pad_token_id=0,
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    expected = alone(model, out.sequences[0])[89:-1]
    assert same_bits(torch.cat(out.logits), expected.contiguous())


@pytest.mark.parametrize("name", ["llama", "phi3"])
def test_generation_from_embeddings_is_that_from_tokens(name, layercast_models):
    model, options = layercast_models[name], {"max_new_tokens": 4, "do_sample": False}
    prompt = 1 + torch.arange(9)[None]
    embeds = model.get_input_embeddings()(prompt)
    mask = torch.ones_like(prompt)
    got = model.generate(inputs_embeds=embeds, attention_mask=mask, pad_token_id=0, **options)
    expected = model.generate(prompt, pad_token_id=0, **options)
    assert got.tolist() == expected[:, 9:].tolist()


def assert_close(a, b):
    assert torch.allclose(a, b, rtol=0, atol=1e-4 * float(b.abs().max()))


def test_rope_of_another_kind_stays_stock_and_is_named(tmp_path):
    rope = {"rope_type": "proportional", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    load_named(save_checkpoint(tmp_path, "llama", rope_parameters=rope), "model.rotary_emb")


class TestLeftOut:
    def test_left_out_modules_stay_stock_in_float32(self, folder):
        options = LayerCastConfig(modules_to_not_convert=["lm_head", "layers.1.mlp"])
        with pytest.warns(CoverageWarning, match=r"model.layers.1.mlp.gate_proj \(Linear\)"):
            model = layercast.load(folder, quantization_config=options)
        stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for name, module in model.named_modules():
            out = name == "lm_head" or name.startswith("model.layers.1.mlp.")
            if type(stock.get_submodule(name)) is nn.Linear:
                assert (type(module) is nn.Linear) == out
                assert module.weight.dtype is (torch.float32 if out else torch.bfloat16)
        assert_close(alone(model, TOKENS), alone(stock, TOKENS))
        assert len(stock_modules(model)) == 5

    def test_a_tied_head_left_out_takes_the_embedding_to_float32(self, tmp_path):
        folder = save_checkpoint(tmp_path, "qwen2", tie_word_embeddings=True)
        options = LayerCastConfig(modules_to_not_convert=["lm_head"])
        with pytest.warns(CoverageWarning):
            model = layercast.load(folder, quantization_config=options)
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert model.lm_head.weight.dtype is torch.float32
        alone(model, TOKENS)

    def test_names_that_the_model_does_not_have(self, folder):
        options = LayerCastConfig(modules_to_not_convert=["mlp.down"])
        message = refusal(
            ValueRangeError, lambda: layercast.load(folder, quantization_config=options)
        )
        assert "'mlp.down'" in message
