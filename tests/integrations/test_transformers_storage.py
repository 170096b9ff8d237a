"""Contract under test: weights stay as the checkpoint stores them; none is held in float32."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from forward_variants import SEQUENCES, alone, same_bits
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, STORAGE, save_checkpoint
from transformers import AutoModel, AutoModelForCausalLM

import layercast
from layercast import LayerCastConfig

TOKENS = SEQUENCES[2]


def stored_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


MIXTURES = ("mixtral", "qwen3_moe")  # their experts' tensors are merged on loading


def test_every_parameter_holds_the_bits_of_the_checkpoint(
    layercast_models, checkpoints, every_architecture
):
    stored = stored_tensors(checkpoints[every_architecture])
    parameters = dict(layercast_models[every_architecture].named_parameters())
    if every_architecture == "gpt_neox":  # the one tensor that the loader renames
        stored["lm_head.weight"] = stored.pop("embed_out.weight")
    if every_architecture in MIXTURES:
        stored = {name: stored[name] for name in stored.keys() & parameters.keys()}
        parameters = {n: p for n, p in parameters.items() if ".mlp." not in n or n in stored}
    assert stored.keys() == parameters.keys()
    assert all(same_bits(stored[name], parameters[name].data) for name in stored)


@pytest.mark.parametrize("name", MIXTURES)
def test_merged_experts_hold_the_bits_of_the_checkpoint(name, checkpoints, layercast_models):
    stored = stored_tensors(checkpoints[name])
    experts = layercast_models[name].model.layers[0].mlp.experts
    names = ("w1", "w3", "w2") if name == "mixtral" else ("gate_proj", "up_proj", "down_proj")
    for e in range(experts.num_experts):
        gate, up, down = (
            next(t for k, t in stored.items() if k.endswith(f".experts.{e}.{n}.weight"))
            for n in names
        )
        assert same_bits(experts.gate_up_proj[e].data, torch.cat((gate, up)))
        assert same_bits(experts.down_proj[e].data, down)


def test_experts_of_several_dtypes_are_merged_without_rounding(tmp_path):
    folder = save_checkpoint(tmp_path, "mixtral", torch.bfloat16)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "layers.0." in name and "experts.1.w1" in name)
    tensors[name] = tensors[name].half() + 2.0**-10  # not representable in bfloat16
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    experts = layercast.load(folder).model.layers[0].mlp.experts
    assert experts.gate_up_proj.dtype is torch.float32
    assert same_bits(experts.gate_up_proj[1, :208].data, tensors[name].float())
    assert experts.down_proj.dtype is torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("tied", [True, False])
def test_storage_dtype_and_tying_are_kept(tmp_path, dtype, tied):
    model = layercast.load(save_checkpoint(tmp_path, "llama", dtype, tie_word_embeddings=tied))
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied


def test_each_tensor_of_a_mixed_checkpoint_keeps_its_own_dtype(tmp_path):
    folder = save_checkpoint(tmp_path, "qwen2", torch.bfloat16)
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        if name.endswith("norm.weight"):
            tensors[name] = tensors[name].float() + 2.0**-20  # not representable in bfloat16
        elif name.endswith("bias"):
            tensors[name] = tensors[name].half()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model = layercast.load(folder)
    for name, parameter in model.named_parameters():
        assert same_bits(parameter.data, tensors[name])


def test_weights_stay_memory_mapped(layercast_models, checkpoints, every_architecture):
    model = layercast_models[every_architecture]
    files = {str(file) for file in checkpoints[every_architecture].glob("*.safetensors")}
    spans = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] in files:
            spans.append(tuple(int(end, 16) for end in fields[0].split("-")))
    for name, parameter in model.named_parameters():
        if ".experts." in name:
            continue
        start, size = parameter.data_ptr(), parameter.nbytes
        assert any(low <= start and start + size <= high for low, high in spans), name


def test_a_forward_pass_makes_no_copy_of_a_weight(layercast_models, every_architecture):
    model = layercast_models[every_architecture]
    with torch.profiler.profile(profile_memory=True) as profile, torch.inference_mode():
        model(TOKENS[None, :1])
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    smallest = min(p.nbytes for name, p in model.named_parameters() if p.ndim == 2)
    assert 0 < largest < smallest


def test_memory_control_sees_the_copy_that_stock_casts_make(model):
    with torch.profiler.profile(profile_memory=True) as profile, torch.inference_mode():
        weight = model.model.layers[0].mlp.up_proj.weight.to(torch.float64)
    assert max(event.self_cpu_memory_usage for event in profile.events()) >= weight.nbytes


def test_sharded_checkpoint_gives_the_bits_of_one_file(checkpoints, layercast_models, tmp_path):
    assert len(list(checkpoints["mistral"].glob("*.safetensors"))) > 1
    whole = layercast.load(save_checkpoint(tmp_path, "mistral"))
    assert same_bits(alone(whole, TOKENS), alone(layercast_models["mistral"], TOKENS))


def test_weight_dtype_is_a_rounding_the_user_asked_for(tmp_path):
    folder = save_checkpoint(tmp_path / "wide", "llama", torch.float32)
    model = layercast.load(folder, weight_dtype="bfloat16")
    for name, stored in stored_tensors(folder).items():
        assert same_bits(model.get_parameter(name).data, stored.to(torch.bfloat16))
    rounded = save_checkpoint(tmp_path / "narrow", "llama", torch.bfloat16)
    assert same_bits(alone(model, TOKENS), alone(layercast.load(rounded), TOKENS))
    assert not same_bits(alone(model, TOKENS), alone(layercast.load(folder), TOKENS))


def test_storing_in_a_wider_dtype_changes_no_bit(model, checkpoints, architecture):
    wide = layercast.load(checkpoints[architecture], weight_dtype=torch.float32)
    assert {parameter.dtype for parameter in wide.parameters()} == {torch.float32}
    assert same_bits(alone(wide, TOKENS), alone(model, TOKENS))


def test_saved_model_loads_by_plain_from_pretrained(
    layercast_models, checkpoints, every_architecture, tmp_path
):
    model = layercast_models[every_architecture]
    model.save_pretrained(tmp_path)
    before, after = (stored_tensors(f) for f in (checkpoints[every_architecture], tmp_path))
    assert before.keys() == after.keys()
    assert all(same_bits(before[name], after[name]) for name in before)
    assert json.loads((tmp_path / "config.json").read_text())["quantization_config"] == {
        "quant_method": "layercast",
        "weight_dtype": None,
        "kv_dtype": "float32",
        "modules_to_not_convert": None,
        "context_length": None,
    }
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.dtype is torch.float32
    assert {p.dtype for p in again.parameters()} == {STORAGE[every_architecture]}
    assert same_bits(alone(again, TOKENS), alone(model, TOKENS))
    assert same_bits(alone(layercast.load(tmp_path), TOKENS), alone(model, TOKENS))


def test_from_pretrained_with_the_configuration_is_the_same_as_load(
    model, checkpoints, architecture
):
    folder = checkpoints[architecture]
    for options in ({}, {"dtype": torch.bfloat16}, {"dtype": "auto", "device_map": "cpu"}):
        other = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=LayerCastConfig(), **options
        )
        assert same_bits(alone(other, TOKENS), alone(model, TOKENS))


def test_architectures_cover_every_storage():
    assert {STORAGE[name] for name in CONFIGS} == {torch.bfloat16, torch.float16, torch.float32}


def test_head_that_differs_from_the_embedding_is_not_tied(tmp_path):
    # The configuration says tied, the file holds two tables: both are used, each in its own dtype.
    folder = save_checkpoint(tmp_path, "llama", tie_word_embeddings=False)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    model = layercast.load(folder)
    stored = stored_tensors(folder)
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        assert same_bits(model.get_parameter(name).data, stored[name])


def test_model_without_a_head_loads_and_gives_the_same_hidden_states(
    model, checkpoints, architecture
):
    decoder = AutoModel.from_pretrained(
        checkpoints[architecture], quantization_config=LayerCastConfig()
    )
    with torch.inference_mode():
        states = [m(TOKENS[None]).last_hidden_state for m in (decoder, model.model)]
    assert same_bits(*states)
    assert decoder.dtype is torch.float32


def test_head_loads_from_a_checkpoint_of_the_decoder_where_it_is_tied(checkpoints, tmp_path):
    AutoModel.from_pretrained(checkpoints["qwen2"]).save_pretrained(tmp_path)
    assert "embed_tokens.weight" in stored_tensors(tmp_path)
    again = layercast.load(tmp_path)
    assert same_bits(again.lm_head.weight.data, again.model.embed_tokens.weight.data)
