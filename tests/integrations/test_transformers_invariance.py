"""Contract under test: a sequence's logits depend on its tokens, position ids and weights alone."""

from __future__ import annotations

import pytest
import torch
from forward_variants import AXES, SEQUENCES, alone, differing, differs, in_batch, same_bits

from layercast import ops


@pytest.mark.parametrize("axis", AXES)
def test_logits_do_not_depend_on(axis, model):
    assert differing(model, axis) == 0


def test_model_is_run_to_run_deterministic(model):
    assert same_bits(alone(model, SEQUENCES[0]), alone(model, SEQUENCES[0]))


@pytest.mark.parametrize("axis", ["batch", "padding", "split", "static_cache", "decode"])
def test_stock_model_fails_the_same_comparison(axis, stock_models):
    # The control: the axes above do move stock PyTorch's bits.
    torch.set_num_threads(1)  # stock operators on two busy cores are slower on two
    assert any(differs(model, axis) for model in stock_models.values())


def test_order_that_follows_the_threads_fails_the_same_comparison(layercast_models, monkeypatch):
    # The control of the thread axis, on which stock PyTorch may happen not to differ.
    def split_by_threads(x, weight, bias=None):
        parts = torch.get_num_threads()
        products = zip(x.chunk(parts, -1), weight.float().chunk(parts, -1), strict=True)
        total = sum(torch.nn.functional.linear(a, w) for a, w in products)
        return total if bias is None else total + bias.float()

    monkeypatch.setattr(ops, "linear", split_by_threads)
    assert differs(layercast_models["llama"], "threads")


def test_padding_memory_is_never_read(model, monkeypatch):
    # Keys and values of padding slots become NaN, which any use would spread.
    attention = ops.attention

    def poisoned(q, k, v, *, key_positions, **options):
        empty = (key_positions < 0)[:, None, :, None]
        nan = torch.tensor(float("nan"))
        return attention(
            q,
            torch.where(empty, nan, k),
            torch.where(empty, nan, v),
            key_positions=key_positions,
            **options,
        )

    monkeypatch.setattr(ops, "attention", poisoned)
    expected = [alone(model, tokens) for tokens in SEQUENCES[:3]]
    for want, got in zip(expected, in_batch(model, SEQUENCES[:3], side="left"), strict=True):
        assert same_bits(want, got)


def test_fully_masked_row_is_zero_after_attention(model, monkeypatch):
    seen = []
    attention = ops.attention
    monkeypatch.setattr(
        ops,
        "attention",
        lambda *args, **options: seen.append(attention(*args, **options)) or seen[-1],
    )
    mask = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]])
    ids = torch.tensor([[3, 3, 3, 3], [1, 2, 3, 4]])
    with torch.inference_mode():
        logits = model(ids, attention_mask=mask).logits
    assert len(seen) == model.config.num_hidden_layers
    assert all(not output[0].any() for output in seen)
    assert torch.isfinite(logits).all()
