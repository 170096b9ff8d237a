"""Contract under test: the model computed is the checkpoint's, as accurately as float32 can."""

from __future__ import annotations

import pytest
import torch
from error_bound import Analysis
from forward_variants import SEQUENCES, alone
from tiny_models import random_tokens
from transformers import AutoModelForCausalLM

from layercast.integrations.transformers import generate

TOKENS = SEQUENCES[0]
# Positions around a window and the block of 64 keys; tokens across the vocabulary.
SAMPLE = [(t, v) for t in (0, 1, 15, 16, 40, 63, 64, 69) for v in (0, 57, 130)]


def stock(folder, dtype=torch.float32):
    # Eager: plain operations, whose errors can be noted; sdpa leaves softcaps out in some releases.
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", experts_implementation="eager"
    )


@pytest.fixture(scope="module")
def bounds(checkpoints, every_architecture):
    """(float64 logit, bound) at each sampled place."""
    analysis = Analysis(stock(checkpoints[every_architecture]), TOKENS)
    exact = torch.tensor([float(analysis.logits[place]) for place in SAMPLE], dtype=torch.float64)
    return exact, torch.tensor([analysis.bound(*place) for place in SAMPLE], dtype=torch.float64)


def errors(model, exact):
    logits = alone(model, TOKENS).double()
    return (torch.stack([logits[place] for place in SAMPLE]) - exact).abs()


def test_error_analysis_follows_the_stock_model(checkpoints, every_architecture, bounds):
    exact, bound = bounds
    assert (errors(stock(checkpoints[every_architecture]), exact) <= bound).all()


def test_logits_are_within_the_float32_error_bound(layercast_models, every_architecture, bounds):
    exact, bound = bounds
    assert (errors(layercast_models[every_architecture], exact) <= bound).all()


def test_bf16_arithmetic_leaves_the_bound(checkpoints, every_architecture, bounds):
    # The control: the bound is tight enough to tell 16-bit arithmetic from float32.
    exact, bound = bounds
    assert (errors(stock(checkpoints[every_architecture], torch.bfloat16), exact) > bound).any()


def test_far_positions_with_our_rotary_table_in_the_stock_model(checkpoints, layercast_models):
    # Stock angles lose their digits with the position; the rest of the stock model does not.
    tokens = random_tokens(700, seed=9)
    ours, theirs = layercast_models["llama"], stock(checkpoints["llama"])
    analysis = Analysis(theirs, tokens, rotary=ours.model.rotary_emb)
    got, plain = alone(ours, tokens).double(), alone(theirs, tokens).double()
    theirs.model.rotary_emb = ours.model.rotary_emb
    same_table = alone(theirs, tokens).double()
    for place in ((520, 7), (640, 57), (699, 0), (699, 130)):
        bound = analysis.bound(*place)
        assert abs(float(got[place] - analysis.logits[place])) <= bound
        assert abs(float(same_table[place] - analysis.logits[place])) <= bound
    # The control: with its own table the stock model is several times as far off.
    ours_off, theirs_off = ((x - analysis.logits)[520:].square().mean() for x in (got, plain))
    assert theirs_off > 4 * ours_off


def test_greedy_tokens_are_those_of_the_stock_float32_model(
    checkpoints, layercast_models, every_architecture
):
    prompts = [tokens[:20].tolist() for tokens in SEQUENCES[:4]]
    models = (layercast_models[every_architecture], stock(checkpoints[every_architecture]))
    ours, theirs = (generate(m, prompts, max_new_tokens=24) for m in models)
    assert [answer.token_ids for answer in ours] == [answer.token_ids for answer in theirs]
