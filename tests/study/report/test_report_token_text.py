from __future__ import annotations

import itertools
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from layercast.study.report.token_text import (
    ALPHABET,
    BASE,
    PieceTable,
    count_tokens,
    encode_number,
    kept_runs,
)


def decode_numbers(text):
    numbers, value, weight = [], 0, 1
    for character in text:
        digit = ALPHABET.index(character)
        value += digit % BASE * weight
        weight *= BASE
        if digit < BASE:
            numbers.append(value)
            value, weight = 0, 1
    return numbers


@given(st.lists(st.integers(0, 10**9)))
def test_numbers_are_read_back(numbers):
    assert decode_numbers("".join(map(encode_number, numbers))) == numbers


def test_alphabet_needs_no_escape_in_json_or_in_a_script_element():
    assert len(ALPHABET) == 2 * BASE == len(set(ALPHABET))
    assert json.dumps(ALPHABET) == f'"{ALPHABET}"'
    assert not set(ALPHABET) & set("<>&")


def test_frequent_tokens_take_one_character():
    counts = {token: 1000 - token for token in range(100)}
    table = PieceTable(counts, {token: f"piece {token}" for token in range(100)})
    assert table.encode(np.arange(BASE - 1)) == ALPHABET[1:BASE]
    assert table.texts[0] == "piece 0"


def test_tokens_without_a_piece_are_shown_by_their_id():
    assert PieceTable({7: 1}, {}).texts == ["⟨7⟩"]


def test_tokens_are_counted_over_arrays_of_different_reach():
    arrays = [np.array([1, 1, 5]), np.array([], np.int32), np.array([900, 1])]
    assert count_tokens(arrays) == {1: 3, 5: 1, 900: 1}


@given(
    length=st.integers(0, 60),
    start=st.integers(0, 60),
    anchors=st.lists(st.integers(0, 80)),
    reach=st.integers(1, 20),
)
def test_kept_runs_hold_what_is_near_an_anchor_or_an_end(length, start, anchors, reach):
    start = min(start, length)
    runs = kept_runs(length, start, anchors, reach)
    kept = [position for low, high in runs for position in range(low, high)]
    near = [0, length, *anchors]
    assert kept == [
        position
        for position in range(start, length)
        if any(anchor - reach <= position < anchor + reach for anchor in near)
    ]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(runs))
