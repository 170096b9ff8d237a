"""Contract under test: a converted checkpoint names the method and is otherwise the source."""

from __future__ import annotations

import filecmp
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_checkpoints import change_config, config_of, same_bits, save_small, tensors_of
from transformers import AutoModelForCausalLM, AutoTokenizer

import layercast
from layercast import testbed
from layercast.checkpoints import convert
from layercast.errors import CheckpointError, DtypeError, UnsupportedError
from layercast.integrations.transformers import LayerCastConfig

TOKENS = torch.arange(3, 23)[None]


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(TOKENS).logits


@pytest.mark.parametrize("name", ["llama", "qwen2", "mixtral"])
def test_both_ways_of_loading_give_the_sources_model_without_arguments(tmp_path, name):
    source = save_small(tmp_path / "source", name)
    convert(source, tmp_path / "out")
    expected = layercast.load(source)
    for model in (
        layercast.load(tmp_path / "out"),
        AutoModelForCausalLM.from_pretrained(tmp_path / "out"),
    ):
        assert isinstance(model.config.quantization_config, LayerCastConfig)
        parameters = dict(model.named_parameters())
        assert all(same_bits(p.data, parameters[n].data) for n, p in expected.named_parameters())
        assert same_bits(logits(model), logits(expected))


def test_control_the_source_itself_loads_as_a_stock_model(tmp_path):
    source = save_small(tmp_path / "source", "qwen2")
    stock = AutoModelForCausalLM.from_pretrained(source)
    assert not same_bits(logits(stock).float(), logits(layercast.load(source)))


def test_weights_are_the_sources_files_byte_for_byte(tmp_path):
    source = save_small(tmp_path / "source", "llama", max_shard_size="60KB")
    written = convert(source, tmp_path / "out")
    files = [path.name for path in sorted(source.glob("*.safetensors"))]
    assert len(files) > 2
    assert list(written.weight_files) == files
    for file in [*files, "model.safetensors.index.json", "generation_config.json"]:
        assert filecmp.cmp(source / file, tmp_path / "out" / file, shallow=False), file
    assert written.weight_bytes == sum((source / file).stat().st_size for file in files)
    assert (written.values, written.changed) == (0, 0)


def test_tied_weights_stay_one_tensor(tmp_path):
    convert(save_small(tmp_path / "source", "qwen2"), tmp_path / "out")
    model = layercast.load(tmp_path / "out")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not any("lm_head" in name for name in tensors_of(tmp_path / "out"))


def test_config_is_that_of_a_saved_layercast_model(tmp_path):
    source = save_small(tmp_path / "source", "llama")
    convert(source, tmp_path / "out")
    layercast.load(source).save_pretrained(tmp_path / "saved")
    assert config_of(tmp_path / "out") == config_of(tmp_path / "saved")


def test_tokenizer_template_and_generation_settings_come_along(tmp_path):
    source = testbed.path()
    convert(source, tmp_path / "out")
    for file in ("chat_template.jinja", "generation_config.json", "tokenizer.json"):
        assert filecmp.cmp(source / file, tmp_path / "out" / file, shallow=False)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    messages = [{"role": "user", "content": "2 + 2?"}]
    expected = AutoTokenizer.from_pretrained(source).apply_chat_template(messages)
    assert tokenizer.apply_chat_template(messages) == expected


def test_other_formats_of_the_weights_stay_behind(tmp_path):
    source = save_small(tmp_path / "source", "llama")
    for name in ("consolidated.safetensors", "pytorch_model.bin", "model.gguf", "optimizer.pt"):
        (source / name).write_bytes(b"other")
    (source / "pytorch_model.bin.index.json").write_text("{}")
    (source / "LICENSE").write_text("terms")
    convert(source, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "LICENSE",
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]


def test_link_shares_the_weights_and_nothing_else(tmp_path):
    source = save_small(tmp_path / "source", "llama")
    convert(source, tmp_path / "out", link=True)
    assert (tmp_path / "out" / "model.safetensors").samefile(source / "model.safetensors")
    assert not (tmp_path / "out" / "config.json").samefile(source / "config.json")


def test_an_empty_folder_is_filled_and_a_converted_one_keeps_its_options(tmp_path):
    source = save_small(tmp_path / "source", "llama")
    layercast.load(
        source, quantization_config=LayerCastConfig(kv_dtype="bfloat16")
    ).save_pretrained(tmp_path / "saved")
    (tmp_path / "out").mkdir()
    convert(tmp_path / "saved", tmp_path / "out")
    assert config_of(tmp_path / "out")["quantization_config"]["kv_dtype"] == "bfloat16"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_gives_the_bits_of_loading_with_weight_dtype(tmp_path, dtype):
    source = save_small(tmp_path / "source", "llama", torch.float32, max_shard_size="120KB")
    written = convert(source, tmp_path / "out", weight_dtype=dtype)
    expected = layercast.load(source, weight_dtype=dtype)
    model = layercast.load(tmp_path / "out")
    parameters = dict(model.named_parameters())
    assert all(same_bits(p.data, parameters[n].data) for n, p in expected.named_parameters())
    assert same_bits(logits(model), logits(expected))
    before, after = tensors_of(source), tensors_of(tmp_path / "out")
    assert before.keys() == after.keys()
    changed = sum(int((after[name].float() != before[name]).sum()) for name in before)
    assert written.changed == changed > 0
    assert written.values == sum(tensor.numel() for tensor in before.values())
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in after.values())
    assert config_of(tmp_path / "out")["quantization_config"]["weight_dtype"] == dtype


def test_rounding_keeps_integers_special_values_and_alignment(tmp_path):
    source = save_small(tmp_path / "source", "llama", torch.float32)
    tensors = load_file(source / "model.safetensors")
    special = torch.tensor([float("inf"), -0.0, 1.0 + 2.0**-9, 3.0 * 2.0**-8 + 1.0, 2.0**-140])
    tensors["model.norm.weight"][:5] = special
    tensors |= {"odd": torch.arange(3, dtype=torch.uint8), "steps": torch.tensor(7)}
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    convert(source, tmp_path / "out", weight_dtype="bfloat16")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(written["odd"], tensors["odd"])
    assert torch.equal(written["steps"], tensors["steps"])
    assert same_bits(written["model.norm.weight"], tensors["model.norm.weight"].bfloat16())
    # Ties go to the even neighbour: down to 1, up to 1 + 2**-6.
    assert written["model.norm.weight"][2:4].tolist() == [1.0, 1.0 + 2.0**-6]


def test_values_beyond_the_range_are_refused_by_name(tmp_path):
    source = save_small(tmp_path / "source", "llama", torch.float32)
    tensors = load_file(source / "model.safetensors")
    tensors["lm_head.weight"][0, 0] = 70000.0
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"`lm_head\.weight`.*70000.*bfloat16"):
        convert(source, tmp_path / "out", weight_dtype="float16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_other_weight_dtypes_are_refused(tmp_path, dtype):
    with pytest.raises(DtypeError, match="convert: `weight_dtype` must"):
        convert(testbed.path(), tmp_path / "out", weight_dtype=dtype)


def test_a_folder_with_files_or_a_file_is_never_written_to(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("full", "file", "dangling"):
        with pytest.raises(CheckpointError, match="must be a new or an empty folder"):
            convert(testbed.path(), tmp_path / name)
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("place", ["../w.safetensors", "{folder}/w.safetensors"])
def test_an_index_cannot_have_files_written_elsewhere(tmp_path, place):
    source = tmp_path / "from" / "checkpoint"
    shutil.copytree(testbed.path(), source)
    weights = source.parent / "w.safetensors"
    shutil.move(source / "model.safetensors", weights)
    with safe_open(weights, framework="pt") as tensors:
        shards = dict.fromkeys(tensors.keys(), place.format(folder=source.parent))
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(CheckpointError, match="must lie in its folder"):
        convert(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from"]


def test_refuses_pickles_with_the_remedy(tmp_path):
    source = save_small(tmp_path / "source", "llama")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickle pytorch_model\.bin.*save_pretrained"):
        convert(source, tmp_path / "out")


def test_refuses_checkpoints_quantised_by_another_method(tmp_path):
    source = save_small(tmp_path / "source", "llama")
    change_config(source, quantization_config={"quant_method": "awq", "bits": 4})
    with pytest.raises(CheckpointError, match="awq"):
        convert(source, tmp_path / "out")
    # By its tensors, where config.json does not say so.
    change_config(source, quantization_config=None)
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.qweight"] = torch.zeros(2, dtype=torch.int32)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="quantised"):
        convert(source, tmp_path / "out")


def test_refuses_what_would_not_load(tmp_path):
    source = save_small(tmp_path / "source", "llama", max_shard_size="60KB")
    change_config(source, intermediate_size=80)
    with pytest.raises(CheckpointError, match="shape"):
        convert(source, tmp_path / "out")
    change_config(source, intermediate_size=96)
    next(source.glob("*-00002-of-*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="every shard"):
        convert(source, tmp_path / "out")
    change_config(source, model_type="t5")
    with pytest.raises(UnsupportedError):
        convert(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_hub_ids_out_of_reach_are_one_line(tmp_path):
    with pytest.raises(CheckpointError) as refusal:
        convert("nobody/nothing", tmp_path / "out")
    assert "\n" not in str(refusal.value)
    assert not Path(tmp_path / "out").exists()
