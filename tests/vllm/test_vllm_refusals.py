"""What the plugin cannot keep its promise for is refused by name, or served with a warning."""

from __future__ import annotations

import json

import pytest
from engines import LAYERCAST, Engine, greedy, outcomes
from tiny_models import random_tokens, save_checkpoint

pytestmark = pytest.mark.vllm

ALLOW = "LAYERCAST_VLLM_ALLOW_UNCOVERED"
UNREAD = {**LAYERCAST, "skip_tokenizer_init": True, "max_model_len": 128}


def _refused(engine, folder):
    status, _, log = engine.attempt(folder)
    assert status != 0
    return log


def test_a_model_whose_code_was_not_read(tmp_path):
    folder = save_checkpoint(tmp_path / "checkpoint", "gpt2", eos_token_id=0)
    log = _refused(Engine(folder, UNREAD), tmp_path / "engine")
    assert "gpt2.GPT2LMHeadModel" in log
    assert f"Set {ALLOW}=1" in log
    request = greedy(random_tokens(20, seed=0).tolist(), tokens=4, ignore_eos=True)
    status, result, log = Engine(folder, UNREAD, {ALLOW: "1"}).attempt(
        tmp_path / "allowed", [request]
    )
    assert status == 0, log[-3000:]
    assert "the guarantee is OFF" in log
    assert "`transformer.ln_f` of class" in log, "each module that is not covered is named"
    assert len(result["rounds"][0][0]["samples"][0]["tokens"]) == 4


def test_another_dtype_of_activations(bundled, tmp_path):
    log = _refused(Engine(bundled, {**LAYERCAST, "dtype": "bfloat16"}), tmp_path)
    assert "torch.bfloat16 is not supported for quantization method layercast" in log
    assert "[torch.float32]" in log


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kv_cache_dtype": "fp8"}, "`--kv-cache-dtype` must be auto or float32"),
        ({"logprobs_mode": "processed_logprobs"}, "`--logprobs-mode` must be raw_logprobs"),
        (
            {
                "speculative_config": {"method": "ngram", "num_speculative_tokens": 2}
                | {"prompt_lookup_max": 3}
            },
            "speculative decoding must be off",
        ),
        (
            {
                "kv_cache_dtype": "bfloat16",
                "kv_cache_dtype_skip_layers": ["0"],
                "hf_overrides": {
                    "quantization_config": {"quant_method": "layercast", "kv_dtype": "bfloat16"}
                },
            },
            "`--kv-cache-dtype-skip-layers` must be left out",
        ),
        ({"enable_prompt_embeds": True}, "`--enable-prompt-embeds` must be off"),
        ({"kv_offloading_size": 0.5}, "`--kv-transfer-config` and `--kv-offloading-size` must"),
        ({"load_format": "dummy"}, "`--load-format` must use vLLM's loaders of weights, got `"),
        (
            {"logits_processors": ["logits_processors:MeanOfTheBatch"]},
            "every logits processor must be vLLM's own or declare layercast_exact = True",
        ),
        (
            {"logits_processors": ["logits_processors:ForSampledTokens"]},
            "logits processors that leave the largest logit as it is must be none but min-p, got "
            "ForSampledTokens",
        ),
    ],
)
def test_settings_that_void_the_guarantee(bundled, tmp_path, options, said):
    assert said in _refused(Engine(bundled, {**LAYERCAST, **options}), tmp_path)


def test_a_logits_processor_that_is_vouched_for_is_taken(bundled, tmp_path):
    options = {**LAYERCAST, "logits_processors": ["logits_processors:Shift"]}
    request = greedy([1, 2, 3], tokens=4, ignore_eos=True)
    (answers,) = Engine(bundled, options).run(tmp_path, [request])["rounds"]
    assert len(answers[0]["samples"][0]["tokens"]) == 4


def _with_dynamic_rope(folder, **more):
    parameters = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0, **more}
    return save_checkpoint(folder, "qwen2", rope_parameters=parameters, max_position_embeddings=64)


def test_a_module_that_is_not_covered_is_named(tmp_path):
    folder = _with_dynamic_rope(tmp_path / "checkpoint", alpha=1000.0)  # a table of vLLM's own
    log = _refused(Engine(folder, {**UNREAD, "max_model_len": 64}), tmp_path / "engine")
    assert "got `model.layers.0.self_attn.rotary_emb` of class" in log


def test_sequences_that_a_scaling_by_length_would_tell_apart(tmp_path):
    folder = _with_dynamic_rope(tmp_path / "checkpoint")
    log = _refused(Engine(folder, UNREAD), tmp_path / "engine")
    assert "`--max-model-len` must be at most 64" in log
    assert "Or set context_length in the quantization_config" in log


def test_layers_run_in_no_model_that_was_not_converted(bundled, tmp_path):
    """Fail closed: without the plugin in a worker, the method's layers refuse to compute."""
    engine = Engine(bundled, environment={"LAYERCAST_TEST_UNHOOK": "1"})
    status, _, log = engine.attempt(tmp_path, [greedy([1, 2, 3], tokens=2)])
    assert status != 0
    assert "the model must be converted when it is loaded" in log


def test_new_weights_for_a_running_engine(bundled, tmp_path):
    log = _refused(Engine(bundled, environment={"LAYERCAST_TEST_CALL": "reload_weights"}), tmp_path)
    assert "UnsupportedError: layercast: `reload_weights` must not be asked" in log


def test_a_release_that_was_not_tested(bundled, tmp_path):
    engine = Engine(bundled, environment={"LAYERCAST_TEST_RELEASE": "0.31.0"})
    log = _refused(engine, tmp_path / "refused")
    assert "vLLM must be of release 0.32" in log
    assert "LAYERCAST_VLLM_ANY_VERSION=1" in log


def test_a_converted_checkpoint_needs_no_quantization_argument(bundled, requests, alone, tmp_path):
    folder = _copy_with(bundled, tmp_path / "checkpoint", {"quant_method": "layercast"})
    (answers,) = Engine(folder, {"dtype": "float32"}).run(tmp_path / "engine", requests)["rounds"]
    assert outcomes(answers) == outcomes(alone)


def test_options_of_a_checkpoint_that_vllm_cannot_follow(bundled, tmp_path):
    options = {"quant_method": "layercast", "modules_to_not_convert": ["lm_head"]}
    folder = _copy_with(bundled, tmp_path / "checkpoint", options)
    log = _refused(Engine(folder, {"dtype": "float32"}), tmp_path / "engine")
    assert "`modules_to_not_convert` must be left out in vLLM" in log


def _copy_with(source, folder, quantization):
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(config))
    return folder
