"""Contract under test: what would void the guarantee is refused, with a remedy named."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from forward_variants import SEQUENCES, alone, same_bits
from safetensors.torch import load_file, save_file
from tiny_models import save_checkpoint
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Cache,
    Gemma2Config,
    GPT2Config,
    T5Config,
)
from transformers.cache_utils import DynamicLayer

import layercast
from layercast import LayerCastConfig
from layercast.errors import (
    BackendError,
    CheckpointError,
    DtypeError,
    GuaranteeError,
    LayercastError,
    ShapeError,
    UnsupportedError,
    ValueRangeError,
)

IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
LEFT = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])


@pytest.fixture
def folder(tmp_path):
    return save_checkpoint(tmp_path / "checkpoint", "llama")


@pytest.fixture
def llama(layercast_models):
    return layercast_models["llama"]


def edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refusal(error, action):
    """The message of an error, which must be one line that ends in a remedy."""
    with pytest.raises(error) as caught:
        action()
    message = str(caught.value)
    assert isinstance(caught.value, LayercastError)
    assert "\n" not in message
    assert message.endswith((".", "..."))
    return message


class TestCheckpoint:
    def test_missing_folder(self, tmp_path):
        for path in (tmp_path / "none", "./none", "~/none-such", "a/b/c"):
            message = refusal(CheckpointError, lambda path=path: layercast.load(path))
            assert "does not exist. Check the path." in message

    def test_file_in_place_of_a_folder(self, folder):
        message = refusal(CheckpointError, lambda: layercast.load(folder / "model.safetensors"))
        assert "Give the folder it lies in." in message

    def test_folder_without_config(self, tmp_path):
        assert "without config.json" in refusal(CheckpointError, lambda: layercast.load(tmp_path))

    def test_hub_out_of_reach(self):
        message = refusal(CheckpointError, lambda: layercast.load("someone/not-in-the-cache"))
        assert "HF_HUB_OFFLINE" in message
        assert "local folder" in message

    def test_gated_repository(self, monkeypatch):
        from huggingface_hub.errors import GatedRepoError

        def gated(*args, **kwargs):
            try:
                raise GatedRepoError("403", response=SimpleNamespace(headers={}, request=None))
            except GatedRepoError as error:
                raise OSError("You are trying to access a gated repo.") from error

        monkeypatch.setattr("transformers.AutoConfig.from_pretrained", gated)
        message = refusal(CheckpointError, lambda: layercast.load("someone/gated"))
        assert "Accept its terms on the hub" in message

    def test_no_safetensors(self, folder):
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        message = refusal(CheckpointError, lambda: layercast.load(folder))
        assert "no safetensors weights" in message
        assert "save_pretrained" in message

    def test_other_files_are_refused_by_from_pretrained_too(self, folder):
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        options = {"quantization_config": LayerCastConfig()}
        action = lambda: AutoModelForCausalLM.from_pretrained(folder, **options)  # noqa: E731
        assert "must be safetensors, got pytorch_model.bin" in refusal(CheckpointError, action)

    def test_truncated_file(self, folder):
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:5000])
        message = refusal(CheckpointError, lambda: layercast.load(folder))
        assert "fetch it again" in message

    def test_missing_weight(self, folder):
        tensors = load_file(folder / "model.safetensors")
        del tensors["model.layers.1.mlp.up_proj.weight"]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        message = refusal(CheckpointError, lambda: layercast.load(folder))
        assert "model.layers.1.mlp.up_proj.weight" in message
        assert "random" in message

    def test_weight_of_another_shape(self, folder):
        edit_config(folder, intermediate_size=200)
        message = refusal(CheckpointError, lambda: layercast.load(folder))
        assert "(200, 128)" in message
        assert "(208, 128)" in message

    def test_float64_is_not_rounded_in_silence(self, folder):
        tensors = load_file(folder / "model.safetensors")
        tensors["model.norm.weight"] = tensors["model.norm.weight"].double()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        message = refusal(CheckpointError, lambda: layercast.load(folder))
        assert "`model.norm.weight`" in message
        assert "weight_dtype='float32'" in message
        assert (
            layercast.load(folder, weight_dtype="float32").model.norm.weight.dtype is torch.float32
        )

    @pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "bitsandbytes", "not-known"])
    def test_other_quantization(self, folder, method):
        edit_config(folder, quantization_config={"quant_method": method, "bits": 4})
        message = refusal(CheckpointError, lambda: layercast.load(folder))
        assert f"'{method}'" in message
        assert "unquantised checkpoint" in message

    def test_quantised_tensors(self, folder):
        tensors = load_file(folder / "model.safetensors")
        name = "model.layers.0.mlp.up_proj.weight"
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        message = refusal(CheckpointError, lambda: layercast.load(folder))
        assert "F8_E4M3" in message

    def test_code_of_the_repository_is_not_run_unasked(self, folder):
        edit_config(folder, model_type="own", auto_map={"AutoConfig": "own.OwnConfig"})
        (folder / "own.py").write_text("raise SystemExit('ran')")
        message = refusal(CheckpointError, lambda: layercast.load(folder))
        assert "config.json" in message

    def test_unknown_model_type(self, folder):
        edit_config(folder, model_type="not-a-model")
        message = refusal(CheckpointError, lambda: layercast.load(folder))
        assert "Check `model_type`" in message

    def test_option_of_a_newer_version(self, folder):
        edit_config(folder, quantization_config={"quant_method": "layercast", "hue": 1})
        message = refusal(ValueRangeError, lambda: AutoModelForCausalLM.from_pretrained(folder))
        assert "hue" in message


class TestCoverage:
    @pytest.mark.parametrize("config", [GPT2Config(), Gemma2Config(), T5Config()])
    def test_other_architectures_are_refused_before_their_weights_are_read(self, tmp_path, config):
        config.save_pretrained(tmp_path)
        message = refusal(UnsupportedError, lambda: layercast.load(tmp_path))
        assert f"'{config.model_type}'" in message

    def test_other_heads(self, folder):
        def load():
            AutoModelForSequenceClassification.from_pretrained(
                folder, quantization_config=LayerCastConfig()
            )

        assert "LlamaForSequenceClassification" in refusal(UnsupportedError, load)

    @pytest.mark.parametrize("activation", ["gelu", "relu", "gelu_pytorch_tanh"])
    def test_other_activations_are_named(self, tmp_path, activation):
        folder = save_checkpoint(tmp_path, "llama", hidden_act=activation)
        message = refusal(UnsupportedError, lambda: layercast.load(folder))
        assert "`model.layers.0.mlp.act_fn`" in message

    def test_a_module_planted_in_the_model_is_named(self, folder, monkeypatch):
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
        message = refusal(UnsupportedError, lambda: layercast.load(folder))
        assert "`model.layers.0.mlp.extra`" in message
        assert "Doubled" in message

    def test_a_norm_of_another_formula_is_not_taken_by_its_name(self, folder, monkeypatch):
        from transformers.models.llama import modeling_llama

        stock = modeling_llama.LlamaRMSNorm.forward
        monkeypatch.setattr(
            modeling_llama.LlamaRMSNorm, "forward", lambda self, x: stock(self, x) + 1.0
        )
        message = refusal(UnsupportedError, lambda: layercast.load(folder))
        assert "`model.layers.0.input_layernorm`" in message

    @pytest.mark.parametrize(
        "rope",
        [
            {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
            {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "factor": 2.0,
                "long_factor": [2.0] * 16,
                "short_factor": [1.0] * 16,
                "original_max_position_embeddings": 2048,
            },
        ],
    )
    def test_rope_that_looks_at_the_batch(self, tmp_path, rope):
        folder = save_checkpoint(tmp_path, "llama", rope_parameters=rope)
        message = refusal(UnsupportedError, lambda: layercast.load(folder))
        assert f"'{rope['rope_type']}'" in message
        assert "`model.rotary_emb`" in message


class TestArguments:
    @pytest.mark.parametrize(
        "options",
        [
            {"dtype": torch.bfloat16},
            {"torch_dtype": "auto"},
            {"load_in_4bit": True},
            {"quantization_config": LayerCastConfig()},
            {"attn_implementation": "eager"},
            {"use_kernels": True},
            {"use_safetensors": False},
            {"gguf_file": "x.gguf"},
            {"ignore_mismatched_sizes": True},
            {"output_loading_info": True},
            {"state_dict": {"a": torch.zeros(1)}},
        ],
        ids=lambda options: next(iter(options)),
    )
    def test_arguments_of_other_ways_to_load(self, folder, options):
        message = refusal(UnsupportedError, lambda: layercast.load(folder, **options))
        assert f"`{next(iter(options))}`" in message

    def test_require(self, folder):
        assert layercast.load(folder, require="bitwise") is not None
        message = refusal(ValueRangeError, lambda: layercast.load(folder, require="nearly"))
        assert "'nearly'" in message

    @pytest.mark.parametrize("dtype", ["float8", torch.float64, "int8"])
    def test_weight_dtype(self, folder, dtype):
        refusal(DtypeError, lambda: layercast.load(folder, weight_dtype=dtype))
        refusal(DtypeError, lambda: LayerCastConfig(weight_dtype=dtype))

    def test_configuration_of_another_method(self):
        refusal(ValueRangeError, lambda: LayerCastConfig(quant_method="gptq"))

    def test_device(self, folder):
        def load():
            AutoModelForCausalLM.from_pretrained(
                folder, quantization_config=LayerCastConfig(), device_map="cuda"
            )

        assert "on the CPU" in refusal(BackendError, load)


class TestModel:
    def test_dtype_reports_the_arithmetic(self, model):
        assert model.dtype is torch.float32

    @pytest.mark.parametrize(
        "cast",
        [
            lambda m: m.to(torch.float64),
            lambda m: m.to("cpu", torch.float64),
            lambda m: m.double(),
            lambda m: m.model.double(),
            lambda m: m.model.layers[0].mlp.to(dtype=torch.float64),
            lambda m: m.type(torch.float64),
        ],
    )
    def test_casts_are_refused_and_change_nothing(self, model, cast):
        before = [parameter.dtype for parameter in model.parameters()]
        assert "weight_dtype=" in refusal(GuaranteeError, lambda: cast(model))
        assert [parameter.dtype for parameter in model.parameters()] == before

    def test_usual_casts_of_a_bf16_model(self, llama):
        for cast in (llama.half, llama.float, lambda: llama.to(torch.float16)):
            refusal(GuaranteeError, cast)
        fp16 = torch.float16
        refusal(GuaranteeError, lambda: llama.model.norm.to(fp16))
        assert llama.to(torch.bfloat16) is llama.bfloat16() is llama.to("cpu") is llama

    def test_fp32_norms_are_not_rounded(self, layercast_models):
        for cast in (lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.bfloat16()):
            refusal(GuaranteeError, lambda cast=cast: cast(layercast_models["mistral"]))

    def test_no_parameter_requires_grad(self, model):
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert not model(IDS).logits.requires_grad

    def test_training_mode(self, folder):
        model = layercast.load(folder)
        assert not model.training
        model.train()
        assert "model.eval()" in refusal(GuaranteeError, lambda: model(IDS))
        model.eval()
        model(IDS)

    def test_other_attention(self, folder):
        model = layercast.load(folder)
        refusal(GuaranteeError, lambda: model.set_attn_implementation("sdpa"))
        model.config._attn_implementation = "eager"
        refusal(GuaranteeError, lambda: model(IDS))

    def test_attention_weights(self, llama):
        assert "output_attentions" in refusal(
            UnsupportedError, lambda: llama(IDS, output_attentions=True)
        )

    def test_hidden_states_are_given(self, model):
        out = model(IDS, output_hidden_states=True)
        assert len(out.hidden_states) == model.config.num_hidden_layers + 1
        assert same_bits(out.logits, model(IDS).logits)

    def test_is_not_compiled_by_generate(self, model):
        assert model.hf_quantizer.is_compileable is False

    def test_copies_and_pickles_stay_layercast_models(self, folder):
        model, tokens = layercast.load(folder), SEQUENCES[2]
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert other.dtype is torch.float32
            assert same_bits(alone(other, tokens), alone(model, tokens))
            refusal(GuaranteeError, other.half)

    def test_caches_that_round(self, llama):
        class Rounding(DynamicLayer):
            pass

        cache = Cache(layers=[Rounding(), Rounding()])
        action = lambda: llama(IDS, past_key_values=cache, use_cache=True)  # noqa: E731
        assert "got Rounding" in refusal(UnsupportedError, action)

    def test_compiling_leaves_the_decoder_as_it_is(self, llama, stock_models):
        def operations(model):
            found = set()

            def backend(graph, inputs):
                found.update(str(n.target) for n in graph.graph.nodes if n.op == "call_function")
                return graph.forward

            compiled = torch.compile(model, backend=backend)
            return alone(compiled, SEQUENCES[2]), " ".join(sorted(found))

        logits, captured = operations(llama)
        assert same_bits(logits, alone(llama, SEQUENCES[2]))
        assert "mul" not in captured
        # The control: a stock decoder is captured, its products and sums to be fused.
        assert "mul" in operations(stock_models["llama", torch.float32])[1]


class TestPositions:
    def test_left_padding_without_position_ids(self, model):
        message = refusal(ValueRangeError, lambda: model(IDS, attention_mask=LEFT))
        assert "row 0" in message
        assert "attention_mask.cumsum(-1) - 1" in message

    def test_the_remedy_works(self, model):
        positions = (LEFT.cumsum(-1) - 1).clamp(min=0)
        logits = model(IDS, attention_mask=LEFT, position_ids=positions).logits
        assert same_bits(logits[0, 2:], alone(model, IDS[0, 2:]))

    def test_right_padding_needs_none(self, model):
        logits = model(IDS, attention_mask=LEFT.flip(1)).logits
        assert same_bits(logits[0, :2], alone(model, IDS[0, :2]))

    @pytest.mark.parametrize("positions", [[[0, 1, 0, 1]], [[1, 2, 3, 4]], [[3, 2, 1, 0]]])
    def test_packed_or_shifted_position_ids(self, model, positions):
        refusal(ValueRangeError, lambda: model(IDS, position_ids=torch.tensor(positions)))

    def test_positional_arguments_are_checked_too(self, model):
        refusal(ValueRangeError, lambda: model.model(IDS, LEFT))

    def test_mask_of_the_new_tokens_only(self, model):
        cache = model(IDS, use_cache=True).past_key_values
        mask = torch.ones(2, 1)
        action = lambda: model(IDS[:, :1], attention_mask=mask, past_key_values=cache)  # noqa: E731
        assert "4 cached tokens" in refusal(ShapeError, action)

    @pytest.mark.parametrize(
        "mask",
        [torch.ones(2, 1, 4, 4).bool(), torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4).long()],
    )
    def test_additive_and_boolean_masks(self, model, mask):
        refusal(UnsupportedError, lambda: model(IDS, attention_mask=mask))

    def test_padding_that_a_rolled_window_has_lost(self, layercast_models):
        model = layercast_models["mistral"]  # window of 16
        mask = torch.zeros(1, 24).long()
        mask[0, :10] = 1  # padded on the right, far beyond the window
        cache = model(torch.zeros(1, 24).long(), attention_mask=mask).past_key_values
        longer = torch.cat((mask, torch.ones(1, 1).long()), 1)

        def step():
            model(
                torch.tensor([[1]]),
                attention_mask=longer,
                position_ids=torch.tensor([[10]]),
                past_key_values=cache,
            )

        assert "Pad on the left" in refusal(UnsupportedError, step)


class TestGenerate:
    def test_right_padded_prompts(self, llama):
        options = {"attention_mask": LEFT.flip(1), "max_new_tokens": 2, "pad_token_id": 0}
        message = refusal(ValueRangeError, lambda: llama.generate(IDS, **options))
        assert "padding_side" in message

    @pytest.mark.parametrize("implementation", [None, "static"])
    def test_generate_of_transformers_gives_the_bits_of_a_forward_pass(self, model, implementation):
        out = model.generate(
            IDS,
            attention_mask=LEFT,
            max_new_tokens=30,
            do_sample=False,
            pad_token_id=0,
            cache_implementation=implementation,
            output_logits=True,
            return_dict_in_generate=True,
        )
        for row, start in ((0, 2), (1, 0)):
            sequence = out.sequences[row, start:]
            want = alone(model, sequence)[-31:-1]
            assert same_bits(torch.stack(out.logits, 1)[row], want.contiguous())


SUBNORMALS = """
import sys, torch, layercast
from layercast.errors import GuaranteeError
from layercast.integrations.transformers.guard import check_subnormals
torch.set_num_threads(2)
case, folder = sys.argv[1:]
if case == "pool":
    # Threads of the pool keep the mode they were started in.
    torch.set_flush_denormal(True)
    torch.ones(1 << 20).mul(2.0)
    torch.set_flush_denormal(False)
    check_subnormals(100)
    action = lambda: check_subnormals(1 << 20)
else:
    model = layercast.load(folder)
    ids = torch.tensor([[1, 2, 3]])
    model(ids)
    torch.set_flush_denormal(True)
    action = lambda: model(ids)
try:
    action()
except GuaranteeError as error:
    print(error)
"""


@pytest.mark.parametrize("case", ["caller", "pool"])
def test_flush_to_zero(case, checkpoints):
    run = subprocess.run(
        [sys.executable, "-c", SUBNORMALS, case, str(checkpoints["llama"])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "torch.set_flush_denormal(False)" in run.stdout
