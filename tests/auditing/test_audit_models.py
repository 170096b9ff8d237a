"""Contract under test: what a whole model's audit says, for models that are covered and not."""

from __future__ import annotations

import functools
import json
import warnings

import pytest
import torch
from audited_models import CONFIGS, config, save_checkpoint
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig

import layercast
from layercast import LayerCastConfig, testbed
from layercast.auditing import guarantee
from layercast.auditing.promises import BITWISE_WORDS
from layercast.errors import GuaranteeError, UnsupportedError


@pytest.mark.parametrize("architecture", CONFIGS)
def test_layercast_models_are_covered_and_stock_ones_are_not(folders, architecture):
    report = layercast.audit(layercast.load(folders[architecture]))
    assert report.covered, str(report)
    assert {way.name for way in report.exercised} == {
        "prefill", "decode", "padded batch", "decoding"
    }  # fmt: skip
    assert all(row.holds for row in report.guarantees)
    assert {row.word for row in report.guarantees} >= set(BITWISE_WORDS)

    stock = AutoModelForCausalLM.from_pretrained(folders[architecture], dtype=torch.float32)
    report = layercast.audit(stock)
    assert not report.covered
    found = {(finding.operation, finding.module) for finding in report.uncovered}
    assert ("aten.mm.default", "lm_head") in found
    assert ("aten.mean.dim", "model.norm") in found
    assert ("aten.cos.default", "model.rotary_emb") in found
    assert any("scaled_dot_product" in operation for operation, _ in found)
    assert not any(row.holds for row in report.guarantees if row.word in BITWISE_WORDS)


def test_bundled_model_is_covered():
    assert layercast.audit(layercast.load(testbed.path())).covered


def test_guarantee_of_records(folders):
    assert guarantee(layercast.load(folders["qwen2"])) == "bitwise"
    assert guarantee(AutoModelForCausalLM.from_pretrained(folders["qwen2"])) == "none"


def test_decode_passes_the_window(folders):
    report = layercast.audit(layercast.load(folders["mistral"]))
    (decode,) = (way for way in report.exercised if way.name == "decode")
    assert "past the window of 16" in decode.detail
    assert "to 24" in decode.detail


def test_long_windows_are_shortened_and_put_back(tmp_path):
    windows = {"use_sliding_window": True, "sliding_window": 2000, "max_window_layers": 1}
    model = layercast.load(save_checkpoint(tmp_path, "qwen2", **windows))
    report = layercast.audit(model)
    assert report.covered
    (decode,) = (way for way in report.exercised if way.name == "decode")
    assert "past the window of 16, shortened for the audit" in decode.detail
    assert model.config.sliding_window == 2000
    assert model.model.layers[1].self_attn.sliding_window == 2000


def test_audit_leaves_no_trace(folders):
    model = layercast.load(folders["llama"])
    tokens = torch.tensor([[1, 2, 3]])
    before = model(tokens).logits
    state = torch.random.get_rng_state()
    layercast.audit(model)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(model(tokens).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_every_expert_is_run(tmp_path):
    folder = save_checkpoint(tmp_path, "mixtral")
    model = layercast.load(folder)
    report = layercast.audit(model)
    assert "experts" in {way.name for way in report.exercised}
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    stock.set_experts_implementation("eager")
    seen: set[int] = set()
    experts = stock.model.layers[0].mlp.experts
    forward = experts.forward

    @functools.wraps(forward)
    def watched(hidden_states, top_k_index, top_k_weights):
        seen.update(top_k_index.unique().tolist())
        return forward(hidden_states, top_k_index, top_k_weights)

    experts.forward = watched
    # A router that would always choose the same two.
    with torch.no_grad():
        for layer in stock.model.layers:
            layer.mlp.gate.weight.zero_()
    report = layercast.audit(stock)
    assert seen == {0, 1, 2, 3}
    assert "aten.index_add_.default" in {finding.operation for finding in report.uncovered}


def test_a_parameter_that_is_never_read_is_not_vouched_for(folders):
    model = layercast.load(folders["llama"])
    model.model.layers[0].mlp.idle = nn.Linear(4, 4)
    report = layercast.audit(model)
    found = [(finding.operation, finding.module) for finding in report.uncovered]
    assert set(found) == {("(not exercised)", "model.layers.0.mlp.idle")}


def test_modules_left_stock_are_named_with_the_option(folders):
    options = LayerCastConfig(modules_to_not_convert=["lm_head"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = layercast.load(folders["llama"], quantization_config=options)
    report = layercast.audit(model)
    assert {finding.module for finding in report.uncovered} == {"lm_head"}, str(report)
    for finding in report.uncovered:
        assert "modules_to_not_convert" in finding.reason
        assert "modules_to_not_convert" in finding.remedy
    assert report.left_stock == ["lm_head"]


def test_16_bit_cache_is_covered_with_a_row_of_its_own(folders):
    options = LayerCastConfig(kv_dtype="bfloat16")
    report = layercast.audit(layercast.load(folders["llama"], quantization_config=options))
    assert report.covered, str(report)
    held = {row.word: row.holds for row in report.guarantees}
    assert held["split invariant"]
    assert not held["keys and values in float32"]


def test_require_bitwise_refuses_naming_operation_and_module(folders, monkeypatch):
    from transformers.models.llama.modeling_llama import LlamaMLP

    assert layercast.load(folders["llama"], require="bitwise").config.model_type == "llama"
    stock = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: stock(self, x) / 3.0)
    with pytest.raises(GuaranteeError) as caught:
        layercast.load(folders["llama"], require="bitwise")
    message = str(caught.value)
    assert "aten.div.Tensor in `model.layers.0.mlp`" in message
    assert "test_audit_models.py:" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "decoding",
    [
        {"do_sample": True},
        {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 20},
        {"num_beams": 3},
        {"prompt_lookup_num_tokens": 2},
        {"cache_implementation": "static"},
    ],
)
def test_decoding_methods_of_layercast_models_are_covered(folders, decoding):
    model = layercast.load(folders["llama"])
    report = layercast.audit(model, generation_config=GenerationConfig(**decoding))
    assert report.covered, str(report)
    assert all(way.runs for way in report.exercised)


def test_stock_sampling_is_not_covered(folders):
    stock = AutoModelForCausalLM.from_pretrained(folders["llama"], dtype=torch.float32)
    report = layercast.audit(stock, generation_config=GenerationConfig(do_sample=True))
    found = {(finding.operation, finding.module) for finding in report.uncovered}
    assert ("aten.multinomial.default", "(decoding)") in found


def test_a_compiled_model_is_not_covered(folders):
    model = torch.compile(layercast.load(folders["llama"]))
    report = layercast.audit(model)
    assert ("torch.compile", "LlamaForCausalLM") in {
        (finding.operation, finding.module) for finding in report.uncovered
    }


def test_models_that_cannot_be_audited_are_refused():
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config("llama"))
    with pytest.raises(UnsupportedError, match="meta device"):
        layercast.audit(skeleton)
    with pytest.raises(UnsupportedError, match=r"model\.eval"):
        layercast.audit(AutoModelForCausalLM.from_config(config("llama")).train())
    with pytest.raises(UnsupportedError, match="without a config"):
        layercast.audit(nn.Linear(2, 2).eval())


def test_report_is_json_and_text(folders):
    report = layercast.audit(layercast.load(folders["llama"]))
    document = json.loads(json.dumps(report.to_dict()))
    assert document["covered"] is True
    assert document["uncovered"] == []
    assert document["versions"]["numerics"] == str(layercast.NUMERICS_VERSION)
    assert {entry["kind"] for entry in document["operations"]} == {"ours", "exact"}
    assert str(report).startswith("LlamaForCausalLM: covered.")
