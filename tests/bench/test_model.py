"""Contract under test: every variant runs the same checkpoint, each as it says."""

import pytest
import torch
from fakes import FakeClock, fake_case, quiet_workspace

from layercast.bench import checkpoint, generation
from layercast.bench.case import Variant
from layercast.bench.checkpoint import load_variant, save_random_checkpoint
from layercast.bench.published import PublishedLinear
from layercast.bench.registry import prepare
from layercast.errors import GuaranteeError, UnsupportedError

TINY = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
MODELS = (Variant.LAYERCAST, Variant.STOCK_BF16, Variant.STOCK_FP32, Variant.PUBLISHED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random_checkpoint(tmp_path_factory.mktemp("tiny"), **TINY)


@pytest.fixture
def workspace(monkeypatch):
    monkeypatch.setattr(checkpoint, "SHAPE", checkpoint.SHAPE | TINY)
    with quiet_workspace() as workspace, torch.inference_mode():
        yield workspace


def _case(operation, rows, **sizes):
    return fake_case(
        operation=operation, rows=rows, sizes=tuple(sizes.items()), variants=MODELS, short=False
    )


def test_a_checkpoint_is_the_same_each_time_and_leaves_the_callers_generator_alone(
    folder, tmp_path
):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = save_random_checkpoint(tmp_path / "again", **TINY)
    assert torch.rand(1) == expected
    name = "model.safetensors"
    assert (again / name).read_bytes() == (folder / name).read_bytes()


@torch.inference_mode()
def test_published_upcasts_whole_weights_and_keeps_16_bit_storage(folder):
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


def test_a_variant_without_a_model_is_refused(folder):
    with pytest.raises(UnsupportedError, match="fma_peak"):
        load_variant(folder, Variant.FMA_PEAK)


@pytest.mark.parametrize("batch", [1, 3])
def test_decode_is_checked_and_takes_turns(workspace, batch):
    prepared = prepare(_case("decode", batch, prompt=4, steps=3), workspace)
    found = prepared.check()
    assert found["logits_equal_alone_and_in_the_batch"] == 2 * TINY["vocab_size"]
    differences = found["relative_difference_to_stock_fp32"]
    assert differences[Variant.LAYERCAST] < 0.01 * differences[Variant.STOCK_BF16]
    assert all(prepared.turns[variant]() > 0 for variant in MODELS)


def test_prefill_takes_turns(workspace):
    prepared = prepare(_case("prefill", 8), workspace)
    assert prepared.check()["logits_equal_alone_and_in_the_batch"] > 0
    assert all(prepared.turns[variant]() > 0 for variant in MODELS)


def test_a_model_whose_logits_depend_on_the_batch_is_refused(workspace, monkeypatch):
    prepared = prepare(_case("decode", 3, prompt=4, steps=1), workspace)
    right = generation._last_logits

    def by_batch(model, prompts):
        logits = right(model, prompts)
        return torch.nextafter(logits, logits + 1) if len(prompts) > 1 else logits

    monkeypatch.setattr(generation, "_last_logits", by_batch)
    with pytest.raises(GuaranteeError, match="in a batch"):
        prepared.check()


def test_a_decode_sample_is_the_mean_of_the_steps_after_the_first():
    clock = FakeClock()

    class Model:
        """Prefill takes 50 s, the untimed step 9 s, then steps of 1, 2 and 3 s."""

        def generate(self, prompts, *, logits_processor, generation_config, **_):
            assert generation_config.max_new_tokens == 5
            for seconds in (50.0, 9.0, 1.0, 2.0, 3.0):
                clock.advance(seconds)
                logits_processor(prompts, torch.zeros(1, 4))

    turn = generation.DecodeTurn(Model(), torch.ones(1, 2), 3, clock, lambda: clock.advance(77.0))
    assert turn() == 2.0


def test_memory_is_that_of_a_process_of_its_own(workspace):
    case = fake_case(operation="memory", sizes=(("tokens", 2),), variants=(Variant.LAYERCAST,))
    prepared = prepare(case, workspace)
    assert prepared.turns[Variant.LAYERCAST]() > 0
    found = prepared.after()["memory_bytes"][Variant.LAYERCAST]
    assert found["peak_bytes"] > 0
    assert set(found) == {
        "loaded_anonymous_bytes",
        "decoded_anonymous_bytes",
        "decoded_file_bytes",
        "peak_bytes",
    }
