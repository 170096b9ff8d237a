"""Contract under test: `layercast audit` needs config.json alone, and its exit status decides."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from transformers import BloomConfig, LlamaConfig

from layercast import testbed

REMOTE = """
from transformers import LlamaConfig, LlamaForCausalLM

class MineConfig(LlamaConfig):
    model_type = "mine"

class MineForCausalLM(LlamaForCausalLM):
    config_class = MineConfig

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits / 3.0
        return output
"""


def _audit(*words: object, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from layercast.cli.main import main; main()", "audit"]
    return subprocess.run(
        [*command, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **settings},
    )


def test_covered_model_without_its_weights(tmp_path):
    shutil.copy(testbed.path() / "config.json", tmp_path)
    result = _audit(tmp_path, "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["covered"] is True
    assert document["model"] == str(tmp_path)


def test_model_that_is_not_covered(tmp_path):
    BloomConfig(n_layer=3).save_pretrained(tmp_path)
    result = _audit(tmp_path)
    assert result.returncode == 3, result.stderr
    said = " ".join(result.stdout.split())  # a long path breaks lines elsewhere
    assert "NOT covered" in said
    assert "aten.native_layer_norm.default" in result.stdout
    assert "layercast refuses it" in said


def test_a_model_too_large_for_this_machine(tmp_path):
    LlamaConfig(
        hidden_size=16384, intermediate_size=53248, num_hidden_layers=126,
        num_attention_heads=128, num_key_value_heads=8, vocab_size=128256,
    ).save_pretrained(tmp_path)  # fmt: skip
    result = _audit(tmp_path, "--decoding", "sample", "--json")
    document = json.loads(result.stdout)
    ways = {way["name"]: way for way in document["exercised"]}
    assert "sample" in ways["decoding"]["detail"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"model_type": "mine", "auto_map": {"AutoConfig": "configuration_mine.MineConfig"}},
            "trust_remote_code",
        ),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"model_type": "no-such-model"}, "no-such-model"),
    ],
)
def test_refusals_are_one_line(tmp_path, changes, named):
    document = json.loads((testbed.path() / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**document, **changes}))
    result = _audit(tmp_path)
    assert result.returncode == 1
    (line,) = (line for line in result.stderr.splitlines() if line.strip())
    assert line.startswith("layercast: ")
    assert named in line


def test_wrong_decoding_lists_the_right_ones():
    result = _audit("testbed", "--decoding", "nucleus")
    assert result.returncode == 1
    assert "greedy, sample, beam" in result.stderr


def test_code_of_the_repository_runs_only_if_asked(tmp_path):
    document = LlamaConfig(num_hidden_layers=4).to_dict()
    document |= {
        "model_type": "mine",
        "architectures": ["MineForCausalLM"],
        "auto_map": {
            "AutoConfig": "modeling_mine.MineConfig",
            "AutoModelForCausalLM": "modeling_mine.MineForCausalLM",
        },
    }
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(document))
    (folder / "modeling_mine.py").write_text(REMOTE)
    assert "--trust-remote-code" in _audit(folder).stderr
    modules = str(tmp_path / "modules")
    result = _audit(folder, "--trust-remote-code", "--json", HF_MODULES_CACHE=modules)
    assert result.returncode == 3, result.stderr
    findings = json.loads(result.stdout)["uncovered"]
    (division,) = (entry for entry in findings if entry["operation"] == "aten.div.Tensor")
    assert division["module"] == "MineForCausalLM"
    assert "modeling_mine.py:" in division["source"]
