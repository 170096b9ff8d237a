"""Contract under test: padding is never read, and the same call gives the same bits."""

from __future__ import annotations

import torch
from forward_variants import SEQUENCES, alone, in_batch, same_bits

from layercast import ops


def test_model_is_run_to_run_deterministic(model):
    assert same_bits(alone(model, SEQUENCES[0]), alone(model, SEQUENCES[0]))


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
