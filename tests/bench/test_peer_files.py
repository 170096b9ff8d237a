"""Contract under test: llama.cpp gets every tensor of a checkpoint, with its bits."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from layercast.testbed import path

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gguf_file(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("peers.gguf_file")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("lm_head.weight", "output.weight"),
        ("model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"),
        ("model.layers.11.self_attn.q_proj.bias", "blk.11.attn_q.bias"),
        ("model.layers.3.self_attn.o_proj.weight", "blk.3.attn_output.weight"),
        ("model.layers.3.post_attention_layernorm.weight", "blk.3.ffn_norm.weight"),
        ("model.layers.27.mlp.down_proj.weight", "blk.27.ffn_down.weight"),
    ],
)
def test_tensors_have_the_names_of_gguf(gguf_file, name, expected):
    assert gguf_file.tensor_name(name) == expected


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_norm.weight", "score.weight", "x"])
def test_a_tensor_that_qwen2_does_not_have_is_refused(gguf_file, name):
    with pytest.raises(ValueError, match="must be of a Qwen2 model"):
        gguf_file.tensor_name(name)


def test_every_tensor_of_the_bundled_model_is_written_with_its_values(gguf_file):
    file = path() / "model.safetensors"
    names = set()
    with safe_open(file, "pt") as expected:
        for name, bits in gguf_file.tensors(file):
            tensor = expected.get_tensor(name)
            assert bits.shape == tuple(tensor.shape)
            wide = torch.from_numpy(gguf_file.widen(bits))
            assert torch.equal(wide, tensor.float())
            names.add(gguf_file.tensor_name(name))
        assert len(names) == len(expected.keys()) > 40


def test_a_checkpoint_of_another_dtype_is_refused(gguf_file, tmp_path):
    save_file({"model.norm.weight": torch.ones(4)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="F32"):
        list(gguf_file.tensors(tmp_path / "model.safetensors"))


def test_special_values_keep_their_bits(gguf_file):
    bits = np.array([0x8000, 0x0001, 0x7F80, 0xFF80, 0x7FC1], dtype=np.uint16)
    assert (gguf_file.widen(bits).view(np.uint32) == bits.astype(np.uint32) << 16).all()


def test_numbers_of_the_model_are_those_of_its_config(gguf_file):
    found = gguf_file.metadata(json.loads((path() / "config.json").read_text()))
    assert found == {
        "qwen2.context_length": 2048,
        "qwen2.embedding_length": 256,
        "qwen2.block_count": 4,
        "qwen2.feed_forward_length": 704,
        "qwen2.attention.head_count": 4,
        "qwen2.attention.head_count_kv": 2,
        "qwen2.attention.layer_norm_rms_epsilon": 1e-6,
        "qwen2.rope.freq_base": 10000.0,
        "qwen2.vocab_size": 640,
    }
