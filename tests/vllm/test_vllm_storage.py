"""Weights stay in the checkpoint's own dtypes, and each storage gives transformers' bits."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_vllm_against_transformers import check_equal
from tiny_models import save_checkpoint

pytestmark = pytest.mark.vllm


def _mix(folder):
    """Store half of the projections, whole layers and parts of merged ones, in float32."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for number, name in enumerate(sorted(tensors)):
        if number % 2 and "proj" in name:
            noise = torch.rand_like(tensors[name], dtype=torch.float32)
            tensors[name] = tensors[name].float() * (1 + noise / 512)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_storages(dtype, tmp_path):
    check_equal(save_checkpoint(tmp_path / "checkpoint", "llama", dtype), tmp_path / "engine")


def test_a_checkpoint_of_several_dtypes(tmp_path):
    folder = save_checkpoint(tmp_path / "checkpoint", "qwen2")
    _mix(folder)
    check_equal(folder, tmp_path / "engine")


@pytest.mark.parametrize("option", [{"weight_dtype": "bfloat16"}, {"kv_dtype": "bfloat16"}])
def test_options_of_config_json(option, tmp_path):
    folder = save_checkpoint(tmp_path / "checkpoint", "llama", torch.float32)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "layercast", **option}
    (folder / "config.json").write_text(json.dumps(config))
    cache = {"kv_cache_dtype": "bfloat16"} if "kv_dtype" in option else {}
    check_equal(folder, tmp_path / "engine", quantization=None, **cache)
