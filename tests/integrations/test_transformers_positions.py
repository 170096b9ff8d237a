"""Contract under test: a slot's position is counted from its own sequence's first token."""

from __future__ import annotations

import pytest
import torch
from transformers import masking_utils

from layercast.errors import ShapeError, UnsupportedError
from layercast.integrations.transformers.positions import (
    SlotPositions,
    count_positions,
    pack,
    slot_position_mask,
    unpack,
)

MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 0, 0, 1], [0, 0, 0, 0, 0]]).bool()
COUNTED = [[-1, -1, 0, 1, 2], [0, 1, 2, 3, 4], [0, 1, -1, -1, 2], [-1] * 5]


def positions(batch, q, kv, **options) -> SlotPositions:
    return unpack(slot_position_mask(batch, q, kv, **options), q, kv)


def test_positions_count_the_real_tokens_of_a_row():
    assert count_positions(MASK).tolist() == COUNTED


def test_prefill():
    got = positions(4, 5, 5, attention_mask=MASK)
    assert got.query.tolist() == got.key.tolist() == COUNTED
    assert got.window is None


def test_decode_step():
    got = positions(4, 1, 5, q_offset=4, attention_mask=MASK)
    assert got.query.tolist() == [[2], [4], [2], [-1]]
    assert got.key.tolist() == COUNTED


def test_empty_slots_of_a_static_cache():
    got = positions(4, 5, 8, q_offset=torch.tensor(0), attention_mask=MASK)
    assert got.key.tolist() == [[*row, -1, -1, -1] for row in COUNTED]
    got = positions(2, 2, 6, q_offset=torch.tensor(1))
    assert got.query.tolist() == [[1, 2]] * 2
    assert got.key.tolist() == [[0, 1, 2, -1, -1, -1]] * 2


def test_rolled_sliding_window_cache():
    mask = masking_utils.sliding_window_causal_mask_function(3)
    left = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()
    options = {"mask_function": mask, "local_size": 3, "q_offset": 4, "kv_offset": 2}
    got = positions(2, 1, 3, attention_mask=left, **options)
    assert got == SlotPositions(got.query, got.key, 3)
    assert got.query.tolist() == [[3], [4]]
    assert got.key.tolist() == [[1, 2, 3], [2, 3, 4]]
    with pytest.raises(UnsupportedError, match="Pad on the left"):
        positions(4, 1, 3, attention_mask=MASK, **options)


def test_a_window_of_nothing_shows_no_key():
    # Qwen2-MoE without sliding layers prepares such a mask, and uses it nowhere.
    mask = masking_utils.sliding_window_causal_mask_function(0)
    got = positions(4, 5, 5, mask_function=mask, local_size=0, attention_mask=MASK)
    assert got.query.tolist() == COUNTED
    assert got.key.tolist() == [[-1] * 5] * 4
    assert got.window is None


def test_a_cache_that_has_dropped_keys_that_the_mask_shows():
    with pytest.raises(UnsupportedError, match=r"has dropped 2\. .*DynamicCache\(\)"):
        positions(4, 1, 3, q_offset=4, kv_offset=2, attention_mask=MASK)


def test_positions_survive_models_that_copy_the_mask():
    mask = slot_position_mask(4, 5, 5, attention_mask=MASK)
    copied = unpack(mask.clone(), 5, 5)
    assert copied.query.tolist() == copied.key.tolist() == COUNTED
    assert copied.window is None
    windowed = pack(SlotPositions(copied.query, copied.key, 7)).clone()
    assert unpack(windowed, 5, 5).window == 7


def test_mask_for_other_lengths_is_refused():
    mask = slot_position_mask(4, 5, 5, attention_mask=MASK)
    for tensor in (mask, mask.clone()):
        with pytest.raises(ShapeError, match="made for 5 queries and 6 keys"):
            unpack(tensor, 5, 6)


@pytest.mark.parametrize(
    "mask", [None, torch.ones(2, 1, 5, 5).bool(), torch.zeros(2, 1, 5, 5), torch.ones(2, 5).long()]
)
def test_other_masks_are_refused(mask):
    with pytest.raises(UnsupportedError, match="padding mask of shape"):
        unpack(mask, 5, 5)


@pytest.mark.parametrize(
    "function",
    [
        masking_utils.bidirectional_mask_function,
        masking_utils.chunked_causal_mask_function(4, torch.zeros(2).long()),
        masking_utils.and_masks(
            masking_utils.causal_mask_function, masking_utils.causal_mask_function
        ),
        masking_utils.or_masks(
            masking_utils.sliding_window_overlay(3), masking_utils.causal_mask_function
        ),
        lambda b, h, q, k: q >= k,
    ],
)
def test_other_patterns_are_refused(function):
    with pytest.raises(UnsupportedError, match="must be causal or sliding-window causal"):
        slot_position_mask(2, 5, 5, mask_function=function)


def test_short_padding_mask_is_refused():
    with pytest.raises(ShapeError, match="3 cached tokens and the 5 given, got 5 columns"):
        slot_position_mask(4, 5, 8, q_offset=3, attention_mask=MASK)
