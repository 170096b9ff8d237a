"""Contract under test: every figure of the benchmarks page and its chart are made of the record."""

import copy
import importlib
import json
import re
import xml.etree.ElementTree as ET

import pytest
from pages import DOCS, ROOT, text_of

PAGE = text_of(DOCS / "benchmarks.md")
RECORD = json.loads(text_of(DOCS / "records" / "peers.json"))


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return lambda name: importlib.import_module(f"peers.{name}")


def test_tables_are_made_of_the_record(peers):
    assert peers("page").filled(PAGE, peers("tables").blocks(RECORD)) == PAGE


def test_chart_is_made_of_the_record(peers):
    assert peers("chart").svg(RECORD) == text_of(DOCS / "images" / "peers.svg")


def _changed(value):
    """A record whose numbers are all others."""
    if isinstance(value, dict):
        return {key: _changed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_changed(item) for item in value]
    return value * 1.37 if isinstance(value, float) else value


@pytest.mark.parametrize("block", ["speed", "memory", "divergence", "distances"])
def test_another_record_would_be_noticed(peers, block):
    record = _changed(copy.deepcopy(RECORD))
    for entry in record["measurements"]:
        for found in entry["engines"].values():
            if "div_percent" in found:
                found["div_percent"] += 1
            for memory in found.get("memory_bytes", {}):
                found["memory_bytes"][memory] += 10**9
    assert peers("tables").blocks(record)[block] != peers("tables").blocks(RECORD)[block]
    assert peers("page").filled(PAGE, peers("tables").blocks(record)) != PAGE


def test_chart_names_every_engine_that_has_both_figures(peers):
    record, tables = RECORD, peers("tables")
    model = tables.models_in(record)[0]
    batches = tables.rows_in(record, model)
    dots = peers("chart").points(record, model, batches[len(batches) // 2])
    root = ET.fromstring(peers("chart").svg(record))
    names = {element.text for element in root.iter() if element.tag.endswith("text")}
    assert {engine.label for engine, _, _ in dots} <= names
    circles = [element for element in root.iter() if element.tag.endswith("circle")]
    assert len(circles) == len(dots) > 1


def test_no_figure_of_a_measurement_is_written_by_hand(peers):
    prose = re.sub(r'<div markdown id="\w+">.*?</div>', "", PAGE, flags=re.DOTALL)
    assert re.findall(r"\d[\d.,]* ?(?:ms|×|%|GB|times)(?!\w)", prose) == []
