"""Contract under test: the model computed is the checkpoint's, as accurately as float32 can."""

from __future__ import annotations

import pytest
import torch
from error_bound import Analysis
from forward_variants import SEQUENCES, alone

from layercast.integrations.transformers import generate

TOKENS = SEQUENCES[0]
# Positions around Mistral's window and the block of 64 keys; tokens across the vocabulary.
SAMPLE = [(t, v) for t in (0, 1, 15, 16, 40, 63, 64, 69) for v in (0, 57, 130)]


@pytest.fixture(scope="module")
def bounds(stock_models, architecture):
    """(float64 logit, bound) at each sampled place."""
    analysis = Analysis(stock_models[architecture, torch.float32], TOKENS)
    exact = torch.tensor([float(analysis.logits[place]) for place in SAMPLE], dtype=torch.float64)
    return exact, torch.tensor([analysis.bound(*place) for place in SAMPLE], dtype=torch.float64)


def errors(model, exact):
    logits = alone(model, TOKENS).double()
    return (torch.stack([logits[place] for place in SAMPLE]) - exact).abs()


def test_error_analysis_follows_the_stock_model(stock_models, architecture, bounds):
    exact, bound = bounds
    assert (errors(stock_models[architecture, torch.float32], exact) <= bound).all()


def test_logits_are_within_the_float32_error_bound(model, bounds):
    exact, bound = bounds
    assert (errors(model, exact) <= bound).all()


def test_bf16_arithmetic_leaves_the_bound(stock_models, architecture, bounds):
    # The control: the bound is tight enough to tell 16-bit arithmetic from float32.
    exact, bound = bounds
    assert (errors(stock_models[architecture, torch.bfloat16], exact) > bound).any()


def test_greedy_tokens_are_those_of_the_stock_float32_model(model, stock_models, architecture):
    prompts = [tokens[:20].tolist() for tokens in SEQUENCES[:4]]
    stock = stock_models[architecture, torch.float32]
    ours, theirs = (generate(m, prompts, max_new_tokens=24) for m in (model, stock))
    assert [answer.token_ids for answer in ours] == [answer.token_ids for answer in theirs]
