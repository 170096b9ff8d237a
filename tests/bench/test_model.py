"""Contract under test: every variant runs the same checkpoint, each as it says."""

import os
from pathlib import Path

import pytest
import torch
from fakes import FakeClock, fake_case, quiet_workspace

from layercast.bench import checkpoint, generation
from layercast.bench.case import Variant
from layercast.bench.checkpoint import NAME, load_variant, save_random_checkpoint
from layercast.bench.model import check_logits, memory_facts
from layercast.bench.model_worker import ModelWorker
from layercast.bench.published import PublishedLinear
from layercast.bench.registry import prepare
from layercast.errors import EnvironmentSetupError, GuaranteeError, UnsupportedError

TINY = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
MODELS = (Variant.LAYERCAST, Variant.STOCK_BF16, Variant.STOCK_FP32)


@pytest.fixture(scope="module")
def workspace():
    """A workspace with a tiny checkpoint; its models' processes are started once."""
    with pytest.MonkeyPatch.context() as patch, quiet_workspace() as workspace:
        patch.setitem(checkpoint.MODELS, NAME, checkpoint.MODELS[NAME] | TINY)
        yield workspace


def _case(operation, rows, **sizes):
    return fake_case(
        operation=operation, rows=rows, sizes=tuple(sizes.items()), variants=MODELS, model=NAME
    )


def test_a_checkpoint_is_the_same_each_time_and_leaves_the_callers_generator_alone(
    workspace, tmp_path
):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = save_random_checkpoint(tmp_path / "again")
    assert torch.rand(1) == expected
    name = "model.safetensors"
    assert (again / name).read_bytes() == (workspace.checkpoint(NAME) / name).read_bytes()


@torch.inference_mode()
def test_published_upcasts_whole_weights_and_keeps_16_bit_storage(workspace):
    folder = workspace.checkpoint(NAME)
    model = load_variant(folder, Variant.PUBLISHED)
    layer = model.model.layers[0].mlp.down_proj
    assert type(layer) is PublishedLinear
    assert layer.weight.dtype == torch.bfloat16
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert model.model.norm.weight.dtype == torch.float32
    x = torch.randn(3, layer.in_features)
    assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight.float()))
    ids = torch.arange(8)[None]
    logits = model(ids).logits
    assert logits.dtype == torch.float32
    stock = load_variant(folder, Variant.STOCK_FP32)(ids).logits
    bf16 = load_variant(folder, Variant.STOCK_BF16)(ids).logits.float()
    # The same arithmetic as FP32, with the same kernels; bf16 rounds each result.
    assert (logits - stock).norm() < 0.01 * (bf16 - stock).norm()


def test_a_variant_without_a_model_is_refused(workspace):
    with pytest.raises(UnsupportedError, match="fma_peak"):
        load_variant(workspace.checkpoint(NAME), Variant.FMA_PEAK)


@pytest.mark.parametrize("batch", [1, 3])
def test_decode_is_checked_and_takes_turns(workspace, batch):
    prepared = prepare(_case("decode", batch, prompt=4, steps=3), workspace)
    found = prepared.check()
    assert found["logits_equal_alone_and_in_the_batch"] == 2 * TINY["vocab_size"]
    differences = found["relative_difference_to_stock_fp32"]
    assert differences[Variant.LAYERCAST] < 0.01 * differences[Variant.STOCK_BF16]
    assert prepared.facts["weight_bytes"] == 2 * prepared.facts["parameters"]
    assert all(prepared.turns[variant]() > 0 for variant in MODELS)


def test_prefill_takes_turns(workspace):
    prepared = prepare(_case("prefill", 8), workspace)
    assert prepared.check()["logits_equal_alone_and_in_the_batch"] > 0
    assert all(prepared.turns[variant]() > 0 for variant in MODELS)


def test_a_model_whose_logits_depend_on_the_batch_is_refused(workspace, tmp_path):
    right = workspace.worker(NAME, Variant.LAYERCAST)

    class ByBatch:
        """The same model, but a batch moves one logit of its last row by one ulp."""

        def ask(self, request, *, only, path, **arguments):
            right.ask(request, only=only, path=path, **arguments)
            if only is None:
                logits = torch.load(path)
                logits[-1, 5] = torch.nextafter(logits[-1, 5], torch.tensor(float("inf")))
                torch.save(logits, path)

    path = tmp_path / "logits.pt"
    assert check_logits({Variant.LAYERCAST: right}, 3, 4, path)
    with pytest.raises(GuaranteeError, match="in a batch"):
        check_logits({Variant.LAYERCAST: ByBatch()}, 3, 4, path)


class ScriptedModel:
    """A model whose logits come after the seconds told."""

    def __init__(self, clock, *seconds):
        self._clock, self._seconds = clock, seconds

    def generate(self, prompts, *, logits_processor, generation_config, **_):
        assert generation_config.max_new_tokens == len(self._seconds)
        for seconds in self._seconds:
            self._clock.advance(seconds)
            logits_processor(prompts, torch.zeros(1, 4))


def test_a_decode_sample_is_the_mean_of_the_steps_after_the_first():
    clock = FakeClock()
    # Prefill takes 50 s, the untimed step 9 s.
    model = ScriptedModel(clock, 50.0, 9.0, 1.0, 2.0, 3.0)
    assert generation.decode_seconds(model, torch.ones(1, 2), 3, clock) == 2.0
    both = generation.prefill_and_decode_seconds(model, torch.ones(1, 2), 3, clock)
    assert both == (50.0, 2.0)


def test_a_prefill_sample_lasts_to_the_first_logits():
    clock = FakeClock()
    assert generation.prefill_seconds(ScriptedModel(clock, 50.0), torch.ones(1, 2), clock) == 50.0


def test_loading_and_decoding_copies_no_weights(monkeypatch):
    # 93 MB, which stand out from what the libraries themselves take.
    wide = {"vocab_size": 32_768, "hidden_size": 512, "intermediate_size": 2048}
    shape = checkpoint.MODELS[NAME] | wide | {"num_hidden_layers": 8, "num_attention_heads": 8}
    monkeypatch.setitem(checkpoint.MODELS, NAME, shape)
    with quiet_workspace() as workspace:
        prepared = prepare(_case("memory", 1, tokens=4), workspace)
        assert all(turn() > 0 for turn in prepared.turns.values())
        found = prepared.after()
    memory, weights = found["memory_bytes"], prepared.facts["checkpoint_bytes"]
    # A copy in 16 bits would add as many bytes as the weights have, one in float32 twice as many.
    assert found["anonymous_over_stock_bf16"] < 0.5
    assert memory[Variant.LAYERCAST]["file_bytes"] > 0.9 * weights
    assert found["peak_over_stock_fp32"] < 1
    # The control: stock FP32 does copy.
    stock_fp32 = {Variant.LAYERCAST: memory[Variant.STOCK_FP32]} | {
        Variant.STOCK_BF16: memory[Variant.STOCK_BF16]
    }
    assert memory_facts(stock_fp32, weights)["anonymous_over_stock_bf16"] > 1.5


def _children():
    own = Path(f"/proc/{os.getpid()}/task")
    return {pid for task in own.iterdir() for pid in (task / "children").read_text().split()}


def test_processes_end_with_their_workspace_and_the_checkpoint_goes():
    before = _children()
    with pytest.MonkeyPatch.context() as patch, quiet_workspace() as workspace:
        patch.setitem(checkpoint.MODELS, NAME, checkpoint.MODELS[NAME] | TINY)
        folder = workspace.checkpoint(NAME)
        workspace.worker(NAME, Variant.STOCK_FP32)
        assert len(_children() - before) == 1
    assert _children() == before
    assert not folder.exists()


def test_a_process_that_cannot_load_is_a_line_with_its_reason(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EnvironmentSetupError, match="stock_fp32"):
        ModelWorker(tmp_path, Variant.STOCK_FP32).ask("memory")


def test_a_process_that_fails_later_is_a_line_with_its_reason(workspace):
    worker = ModelWorker(workspace.checkpoint(NAME), Variant.STOCK_FP32)
    with pytest.raises(EnvironmentSetupError, match="unknown"):
        worker.ask("unknown")
    with pytest.raises(EnvironmentSetupError, match="unknown"):
        worker.ask("memory")
    worker.close()
