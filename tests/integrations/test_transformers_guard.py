"""Contract under test: what would void the guarantee of a loaded model is refused."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from forward_variants import SEQUENCES, alone, same_bits
from refusals import IDS, LEFT, refusal
from transformers import (
    Cache,
)
from transformers.cache_utils import DynamicLayer

import layercast
from layercast.errors import (
    GuaranteeError,
    ShapeError,
    UnsupportedError,
    ValueRangeError,
)


def test_dtype_reports_the_arithmetic(model):
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
def test_casts_are_refused_and_change_nothing(model, cast):
    before = [parameter.dtype for parameter in model.parameters()]
    assert "weight_dtype=" in refusal(GuaranteeError, lambda: cast(model))
    assert [parameter.dtype for parameter in model.parameters()] == before


def test_usual_casts_of_a_bf16_model(llama):
    for cast in (llama.half, llama.float, lambda: llama.to(torch.float16)):
        refusal(GuaranteeError, cast)
    fp16 = torch.float16
    refusal(GuaranteeError, lambda: llama.model.norm.to(fp16))
    assert llama.to(torch.bfloat16) is llama.bfloat16() is llama.to("cpu") is llama


def test_fp32_norms_are_not_rounded(layercast_models):
    for cast in (lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.bfloat16()):
        refusal(GuaranteeError, lambda cast=cast: cast(layercast_models["mistral"]))


def test_no_parameter_requires_grad(model):
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model(IDS).logits.requires_grad


def test_training_mode(folder):
    model = layercast.load(folder)
    assert not model.training
    model.train()
    assert "model.eval()" in refusal(GuaranteeError, lambda: model(IDS))
    model.eval()
    model(IDS)


def test_other_attention(folder):
    model = layercast.load(folder)
    refusal(GuaranteeError, lambda: model.set_attn_implementation("sdpa"))
    model.config._attn_implementation = "eager"
    refusal(GuaranteeError, lambda: model(IDS))


def test_attention_weights(llama):
    assert "output_attentions" in refusal(
        UnsupportedError, lambda: llama(IDS, output_attentions=True)
    )


def test_router_logits(layercast_models):
    mixtral = layercast_models["mixtral"]
    message = refusal(UnsupportedError, lambda: mixtral(IDS, output_router_logits=True))
    assert "`output_router_logits`" in message


def test_hidden_states_are_given(model):
    out = model(IDS, output_hidden_states=True)
    assert len(out.hidden_states) == model.config.num_hidden_layers + 1
    assert same_bits(out.logits, model(IDS).logits)


def test_is_not_compiled_by_generate(model):
    assert model.hf_quantizer.is_compileable is False


def test_copies_and_pickles_stay_layercast_models(folder):
    model, tokens = layercast.load(folder), SEQUENCES[2]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.dtype is torch.float32
        assert same_bits(alone(other, tokens), alone(model, tokens))
        refusal(GuaranteeError, other.half)


def test_caches_that_round(llama):
    class Rounding(DynamicLayer):
        pass

    cache = Cache(layers=[Rounding(), Rounding()])
    action = lambda: llama(IDS, past_key_values=cache, use_cache=True)  # noqa: E731
    assert "got Rounding" in refusal(UnsupportedError, action)


def test_compiling_leaves_the_decoder_as_it_is(llama, stock_models):
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


def test_left_padding_without_position_ids(model):
    message = refusal(ValueRangeError, lambda: model(IDS, attention_mask=LEFT))
    assert "row 0" in message
    assert "attention_mask.cumsum(-1) - 1" in message


def test_the_remedy_works(model):
    positions = (LEFT.cumsum(-1) - 1).clamp(min=0)
    logits = model(IDS, attention_mask=LEFT, position_ids=positions).logits
    assert same_bits(logits[0, 2:], alone(model, IDS[0, 2:]))


def test_right_padding_needs_none(model):
    logits = model(IDS, attention_mask=LEFT.flip(1)).logits
    assert same_bits(logits[0, :2], alone(model, IDS[0, :2]))


@pytest.mark.parametrize("positions", [[[0, 1, 0, 1]], [[1, 2, 3, 4]], [[3, 2, 1, 0]]])
def test_packed_or_shifted_position_ids(model, positions):
    refusal(ValueRangeError, lambda: model(IDS, position_ids=torch.tensor(positions)))


def test_positional_arguments_are_checked_too(model):
    refusal(ValueRangeError, lambda: model.model(IDS, LEFT))


def test_mask_of_the_new_tokens_only(model):
    cache = model(IDS, use_cache=True).past_key_values
    mask = torch.ones(2, 1)
    action = lambda: model(IDS[:, :1], attention_mask=mask, past_key_values=cache)  # noqa: E731
    assert "4 cached tokens" in refusal(ShapeError, action)


@pytest.mark.parametrize(
    "mask",
    [torch.ones(2, 1, 4, 4).bool(), torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4).long()],
)
def test_additive_and_boolean_masks(model, mask):
    refusal(UnsupportedError, lambda: model(IDS, attention_mask=mask))


def test_padding_that_a_rolled_window_has_lost(layercast_models):
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


def test_right_padded_prompts(llama):
    options = {"attention_mask": LEFT.flip(1), "max_new_tokens": 2, "pad_token_id": 0}
    message = refusal(ValueRangeError, lambda: llama.generate(IDS, **options))
    assert "padding_side" in message


@pytest.mark.parametrize("implementation", [None, "static"])
def test_generate_of_transformers_gives_the_bits_of_a_forward_pass(model, implementation):
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
