from __future__ import annotations

import json

import numpy as np
import pytest

from layercast.study.report import packing
from layercast.study.report.packing import Answer, ProblemAnswers, pack

PIECES = {token: f"<{token}>" for token in range(50)}


def answer(ids, *, digests=None, correct=True, extracted="4", probability=0.5):
    ids = np.array(ids, np.int32)
    top_ids = np.stack([ids, ids + 1], axis=1)
    top = np.log(np.array([probability, probability / 2], np.float64)).astype(np.float32)
    return Answer(
        token_ids=ids,
        top_ids=top_ids,
        top_logprobs=np.tile(top, (len(ids), 1)),
        digests=ids.astype(np.uint64) if digests is None else np.array(digests, np.uint64),
        correct=correct,
        extracted=extracted,
    )


def problem(*rows):
    return ProblemAnswers("p", "question", "4", [list(row) for row in rows])


def test_equal_answers_are_stored_once_and_others_as_what_they_add():
    packed = pack([problem([answer([1, 2, 3]), answer([1, 2, 3]), answer([1, 2, 9, 9])])], PIECES)
    (stored,) = packed["problems"]
    assert stored["members"] == [0, 0, 1]
    assert stored["shared"] == [0, 2]
    assert [len(text) for text in stored["texts"]] == [3, 2]
    assert stored["lengths"] == [3, 4]


def test_candidates_are_kept_where_an_answer_parts_from_another_and_only_there():
    near = answer([1, 2, 9], probability=0.25)
    packed = pack([problem([answer([1, 2, 3]), near, answer([1, 2, 3])])], PIECES)
    (stored,) = packed["problems"]
    # One position a configuration: the third token. Equal rows are stored once.
    assert stored["candidates"] == [[0], [1], [0]]
    number = packed["pieces"].index
    assert stored["rows"] == [
        [number("<3>") + 1, 5_000_000, number("<4>") + 1, 2_500_000],
        [number("<9>") + 1, 2_500_000, number("<10>") + 1, 1_250_000],
    ]


def test_an_answer_that_is_the_beginning_of_another_has_no_candidates_where_it_ends():
    packed = pack([problem([answer([1, 2]), answer([1, 2, 3])])], PIECES)
    assert packed["problems"][0]["candidates"] == [[], [0]]


def test_missing_answers_and_wrong_ones_are_told_apart():
    packed = pack([problem([answer([1]), None], [None, answer([2], correct=False)])], PIECES)
    (stored,) = packed["problems"]
    assert stored["correct"] == "1--0"
    assert stored["members"] == [0, -1, -1, 1]
    assert stored["candidates"][1] == []


def test_first_differing_bit_comes_from_the_digests():
    row = [
        answer([1, 2], digests=[7, 8]),
        answer([1, 2], digests=[7, 9]),
        answer([1, 2], digests=[7, 8]),
    ]
    bits = pack([problem(row)], PIECES)["problems"][0]["bits"]
    assert bits == {"members": [0, 1, 0], "shared": [0, 1]}


def test_long_answers_are_cut_about_their_divergences_and_say_how_much(monkeypatch):
    rng = np.random.default_rng(3)
    walk = rng.integers(1, 40, size=5000)
    other = np.concatenate([walk[:2500], rng.integers(1, 40, size=2500)])
    other[2500] = 45
    monkeypatch.setattr(packing, "TEXT_BUDGET", 1500)
    packed = pack([problem([answer(walk), answer(other)])], PIECES)
    assert packed["reach"] == 120
    text = sum(len(t) for t in packed["problems"][0]["texts"])
    assert 500 < text <= 1500
    monkeypatch.undo()
    whole = pack([problem([answer(walk), answer(other)])], PIECES)
    assert whole["reach"] == 0


def test_past_every_reach_the_shortest_is_taken(monkeypatch):
    monkeypatch.setattr(packing, "TEXT_BUDGET", 1)
    walk = np.arange(1000) % 40
    assert pack([problem([answer(walk)])], PIECES)["reach"] == packing.REACHES[-1]


@pytest.mark.slow
def test_a_thousand_problems_twelve_configurations_four_precisions_stay_small():
    rng = np.random.default_rng(5)
    pieces = {token: f" w{token}" for token in range(512)}
    problems = []
    for number in range(1000):
        walk = rng.zipf(1.3, size=200) % 500
        rows = []
        for precision in range(4):
            row = []
            for _ in range(12):
                ids = walk.copy()
                if precision < 2 and rng.random() < 0.5:
                    at = rng.integers(0, 200)
                    ids[at:] = rng.zipf(1.3, size=200 - at) % 500
                row.append(answer(ids, probability=float(rng.random())))
            rows.append(row)
        problems.append(ProblemAnswers(f"p{number}", "q" * 200, "4", rows))
    packed = pack(problems, pieces)
    assert packed["reach"] == 0
    assert len(json.dumps(packed, separators=(",", ":"))) < 15_000_000
