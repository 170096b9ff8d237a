"""Contract under test: a measured figure on a page names its record and agrees with it.

`figures.py` says how. The tables of docs/benchmarks.md are made from their record as a whole, and
compared with it by a test of their own.
"""

from __future__ import annotations

import json

import pytest
from figures import disagreeing, figures_of, without_record
from pages import PAGES, text_of

# Numbers with a unit that nobody measured here: what they are, and what holds them.
STATED = {
    # Other people's, cited where they stand.
    "up to 9 points": "the paper's",
    "72.3 %": "an example of a model card",
    "FP32 in table 10 has 9 configurations": "the paper's",
    "the batch size, 12 configurations": "the paper's",
    # Derived; tests/docs/test_stated_numbers.py does so again.
    "22 %": "standard error of a deviation from 12",
    "deviation from 12 configurations": "the same",
    "103 roundings": "of a sum of 18,944",
    "64 times in its chunk": "the length of a chunk",
    # Chosen.
    "95 %": "level of the intervals",
    "in 95 of 100 such studies": "the same",
    "100 %": "a whole",
    "blocks of 64 positions": "the contract",
    "longer than 256 tokens": "layercast.auditing.windows",
    "below 1 nat": "layercast.study.flips",
    # Bounds: csrc/tests/exhaustive.cc fails beyond, over all inputs.
    "at most 1 ulp": "exp, log",
    "at most 2 ulp off": "sigmoid",
    "| 1 ulp, all 2^32 inputs": "exp, log, tanh",
    "| 2 ulp, all 2^32 inputs": "composed functions",
    # Limits of graders and sandbox; tests/docs/test_stated_numbers.py compares.
    "4 GiB of memory and 5 s of CPU time": "a comparison of formulas",
    "| 6 s |": "CPU time",
    "the 20 s a program": "wall time",
    "| 20 s |": "wall time",
    "16 processes for 20 s": "wall time",
    "| 1 GiB |": "memory",
    "up to 1 GiB each": "memory",
    "| 16 MiB, 64 MiB |": "files",
    "| 8 MiB |": "output",
}
CHECKED = [page for page in PAGES if page.name != "benchmarks.md"]
ALL = [(page.name, figure) for page in PAGES for figure in figures_of(text_of(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_are_those_of_their_records(page):
    assert disagreeing(text_of(page)) == []


@pytest.mark.parametrize(
    "figure", [f for _, f in ALL], ids=[f"{name}-{f.place}" for name, f in ALL]
)
def test_another_value_would_be_shown_otherwise(figure):
    assert figure.as_shown(2 * figure.value() + 1) != figure.shown


@pytest.mark.parametrize("page", CHECKED, ids=lambda page: page.name)
def test_every_measured_number_names_its_record(page):
    assert without_record(text_of(page), list(STATED)) == []


def test_stated_numbers_are_on_a_page():
    everything = " ".join(" ".join(text_of(page).split()) for page in CHECKED)
    assert [phrase for phrase in STATED if phrase not in everything] == []


def test_a_changed_record_is_noticed(tmp_path):
    record = tmp_path / "r.json"
    text = "It takes 1.50 GB<!-- r.json runs.0.bytes/1e9 .2f --> and 7 %<!-- r.json share .0% -->."
    record.write_text(json.dumps({"runs": [{"bytes": 1.504e9}], "share": 0.0651}))
    assert disagreeing(text, tmp_path) == []
    record.write_text(json.dumps({"runs": [{"bytes": 1.506e9}], "share": 0.0649}))
    assert disagreeing(text, tmp_path) == [
        "1.50 is 1.51 in r.json, runs.0.bytes",
        "7 is 6 in r.json, share",
    ]


@pytest.mark.parametrize(
    "text",
    ["It is 3.1 times as fast.", "| 12 % |", "5 min 48 s", "Only 46 of 64 moved.", "7 minutes"],
)
def test_a_number_without_a_record_is_noticed(text):
    assert without_record(text, []) != []


@pytest.mark.parametrize("text", ["`-n 5 s`", "```console\n$ sleep 5 s\n```\n", "version 5.17"])
def test_code_and_versions_are_no_figures(text):
    assert without_record(text, []) == []


@pytest.mark.parametrize(
    "text", ["7 %<!-- r.json share -->", "some %<!-- r.json share .0f -->", "7 %<!-- later -->"]
)
def test_a_comment_that_names_no_record_is_noticed(text):
    with pytest.raises(ValueError, match="names no figure's record"):
        figures_of(text)
