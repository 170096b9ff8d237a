"""Contract under test: adapters are refused before they compute, and the remedy named works."""

from __future__ import annotations

import json

import peft
import pytest
import torch
from forward_variants import SEQUENCES, alone
from refusals import refusal
from transformers import AutoModelForCausalLM

import layercast
from layercast.errors import UnsupportedError
from layercast.integrations.transformers.adapters import refuse_adapters

TOKENS = SEQUENCES[2]


def test_adapter_folder_in_place_of_a_model(folder, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    message = refusal(UnsupportedError, lambda: layercast.load(adapter))
    assert "merge_and_unload" in message


@pytest.mark.parametrize("mark", ["peft_config", "_hf_peft_config_loaded"])
@pytest.mark.parametrize("part", ["", "model"])
def test_model_that_peft_has_marked_is_refused_at_the_next_pass(folder, mark, part):
    # What peft leaves on the model it was given, with or without peft at hand.
    model = layercast.load(folder)
    alone(model, TOKENS)
    setattr(model.get_submodule(part), mark, {"default": None})
    message = refusal(UnsupportedError, lambda: alone(model, TOKENS))
    assert "without adapters" in message


def test_adapters_of_peft(folder, tmp_path, monkeypatch):
    # transformers 5.24 asks for peft 0.22 before it is released; its method works with 0.21 all
    # the same, and what is under test is what it leaves on the model.
    monkeypatch.setattr("transformers.integrations.peft.check_peft_version", lambda **_: None)
    lora = peft.LoraConfig(target_modules=["q_proj", "down_proj"], r=4, init_lora_weights=False)
    for adapt in (
        lambda model: peft.get_peft_model(model, lora),
        lambda model: model.add_adapter(lora) or model,
    ):
        adapted = adapt(layercast.load(folder)).eval()
        refusal(UnsupportedError, lambda adapted=adapted: alone(adapted, TOKENS))

    # The remedy that the message names.
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    refuse_adapters(base)
    before = alone(base, TOKENS)
    merged = peft.get_peft_model(base, lora).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    expected = alone(merged, TOKENS)
    got = alone(layercast.load(tmp_path / "merged", require="bitwise"), TOKENS)
    assert torch.allclose(got, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert not torch.allclose(got, before, rtol=0, atol=1e-1)
