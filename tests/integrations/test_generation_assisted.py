"""Contract under test: drafted tokens change how fast an answer comes, never the answer."""

from __future__ import annotations

import pytest
import torch
from decoding_variants import PROMPTS, STEPS, answers, padded, same
from transformers import GenerationConfig

from layercast.errors import UnsupportedError

GREEDY = {}
SAMPLE = {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "seed": 3}
# Tokens that come again, so that prompt lookup finds drafts.
REPEATING = [*PROMPTS[0], *PROMPTS[0], *PROMPTS[0][:7]]


@pytest.fixture(params=["llama", "mistral", "qwen2_hybrid"])
def model(request, layercast_models):
    return layercast_models[request.param]


@pytest.fixture(params=[GREEDY, SAMPLE], ids=["greedy", "sample"])
def options(request):
    return request.param


class Passes:
    """Counts forward passes of a model."""

    def __init__(self, model):
        self.count = 0
        self._hook = model.register_forward_pre_hook(self._add)

    def _add(self, module, args):
        self.count += 1

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._hook.remove()


def test_prompt_lookup_gives_the_same_bits(model, options):
    for prompt in (REPEATING, PROMPTS[2]):
        (expected,) = answers(model, [prompt], **options)
        (got,) = answers(model, [prompt], **options, prompt_lookup_num_tokens=5)
        assert same(got, expected)


def test_an_assistant_gives_the_same_bits(model, options, layercast_models):
    (expected,) = answers(model, PROMPTS[:1], **options)
    assistant = layercast_models["qwen3"]
    (got,) = answers(model, PROMPTS[:1], **options, assistant_model=assistant)
    assert same(got, expected)


def test_a_stock_assistant_gives_the_same_bits(layercast_models, options, stock_models):
    torch.set_num_threads(1)  # stock operators on two busy cores are slower on two
    model, assistant = layercast_models["llama"], stock_models["llama", torch.bfloat16]
    (expected,) = answers(model, PROMPTS[:1], **options)
    (got,) = answers(model, PROMPTS[:1], **options, assistant_model=assistant)
    assert same(got, expected)


def test_a_model_drafts_for_itself_what_it_then_draws(layercast_models, options):
    model = layercast_models["llama"]
    own = model.generation_config
    model.generation_config = GenerationConfig(assistant_confidence_threshold=0.0)
    try:
        (expected,) = answers(model, PROMPTS[:1], **options)
        calls = []

        def count(module, args, kwargs):
            calls.append(kwargs.get("logits_to_keep"))

        hook = model.register_forward_pre_hook(count, with_kwargs=True)
        (got,) = answers(model, PROMPTS[:1], **options, assistant_model=model)
        hook.remove()
    finally:
        model.generation_config = own
    assert same(got, expected)
    # All drafts accepted: 20, then the rest, each checked in one pass.
    assert [kept for kept in calls if kept and kept > 1] == [21, 3]


def test_lookup_accepts_drafts(layercast_models):
    # The control for the tests above: drafts are made, and some are accepted.
    model = layercast_models["llama"]
    model_options = {"prompt_lookup_num_tokens": 5, "suppress_tokens": list(range(3, 130))}
    with Passes(model) as passes:
        answers(model, [REPEATING], **model_options)
    assert passes.count < STEPS


def test_stock_assisted_decoding_gives_other_bits(stock_models):
    # The control: the passes that check drafts sum in another order.
    torch.set_num_threads(1)

    def differs(stock):
        (expected,) = answers(stock, [REPEATING])
        (got,) = answers(stock, [REPEATING], prompt_lookup_num_tokens=5)
        return not same(got, expected)

    assert any(differs(stock) for stock in stock_models.values())


@pytest.mark.parametrize("every", [4, 44])
def test_ends_among_drafts_end_the_answer(layercast_models, options, every):
    model = layercast_models["llama"]
    ends = {"eos_token_id": list(range(0, 130, every))}
    for prompt in (REPEATING, PROMPTS[1]):
        (expected,) = answers(model, [prompt], **options, **ends)
        for drafts in ({"prompt_lookup_num_tokens": 4}, {"assistant_model": model}):
            (got,) = answers(model, [prompt], **options, **ends, **drafts)
            assert same(got, expected)


def test_scores_are_put_back(model):
    options = {**SAMPLE, "max_new_tokens": 10, "pad_token_id": 0}
    kept = {"output_scores": True, "output_logits": True, "return_dict_in_generate": True}
    inputs = padded([REPEATING])
    expected = model.generate(**inputs, **options, **kept)
    got = model.generate(**inputs, **options, **kept, prompt_lookup_num_tokens=5)
    for a, b in ((expected.scores, got.scores), (expected.logits, got.logits)):
        assert torch.equal(torch.stack(a), torch.stack(b))
        assert not torch.stack(a).isposinf().any()


def test_padding_of_the_prompt_changes_nothing(layercast_models, options):
    model = layercast_models["llama"]
    (expected,) = answers(model, [REPEATING], **options)
    inputs = padded([REPEATING, [0] * (len(REPEATING) + 9)])
    out = model.generate(
        input_ids=inputs["input_ids"][:1],
        attention_mask=inputs["attention_mask"][:1],
        **options,
        max_new_tokens=STEPS,
        pad_token_id=0,
        prompt_lookup_num_tokens=5,
    )
    assert out[0, -STEPS:].tolist() == expected.tokens


@pytest.mark.parametrize(
    "option",
    [{"assistant_early_exit": 1}, {"assistant_ensemble_weight": 0.5}, {"use_mtp": True}],
    ids=lambda option: next(iter(option)),
)
def test_other_ways_to_draft_are_refused(layercast_models, option):
    model = layercast_models["llama"]
    with pytest.raises(UnsupportedError, match=next(iter(option))):
        answers(model, PROMPTS[:1], prompt_lookup_num_tokens=3, **option)
