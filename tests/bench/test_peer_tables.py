"""Contract under test: tables and chart say what a record holds, losses included."""

import importlib
import itertools
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return lambda name: importlib.import_module(f"peers.{name}")


def _result(prefill, decode, ours=(1.0, 0.1)):
    seconds = {"prefill": {"median": prefill}, "decode": {"median": decode}}
    ratios = (prefill / ours[0], decode / ours[1])
    return {
        "load_seconds": 1.25,
        "memory_bytes": {"anonymous_bytes": 2e8, "file_bytes": 1e9, "peak_bytes": 1.5e9},
        "seconds": seconds,
        "speed": {
            kind: {"value": ratio, "low": 0.9 * ratio, "high": 1.1 * ratio}
            for kind, ratio in zip(("prefill", "decode"), ratios, strict=True)
        },
        "facts": {"engine": "an engine 1.2"},
    }


def _divergence(percent, logprobs, rows, against=None):
    return {
        "div_percent": percent,
        "div_index": 51.4 if percent else -1.0,
        "problems": 32,
        "logprobs": logprobs,
        "rows": rows,
        "against": against or {},
    }


@pytest.fixture
def record():
    speed = {
        "part": "speed",
        "context": "k",
        "model": "0.5 B model",
        "rows": 8,
        "quiet": True,
        "engines": {
            "layercast": _result(1.0, 0.1),
            "stock_bf16": _result(3.0, 0.95),
            "llama_cpp_bf16": _result(0.5, 0.2),
        },
    }
    equal = {"problems_differing": 0, "problems_differing_percent": 0.0, "positions": 7000}
    differ = {"problems_differing": 8, "problems_differing_percent": 25.0, "positions": 6000}
    beside = {"positions": 6000, "median_difference": 1e-3, "largest_difference": 0.5}
    found = {
        "layercast": _divergence(0.0, equal, equal),
        "stock_bf16": _divergence(62.5, differ, differ, {"stock_fp32": beside}),
        "vllm_bf16": _divergence(12.5, differ, None),
    }
    context = {
        "device": {"cpu_model": "A CPU", "usable_cores": 2, "memory_bytes": 24 * 2**30},
        "torch": {"cpu_capability": "AVX2"},
        "time": "2026-12-01T10:00:00+00:00",
        "source": {"commit": "0123456789abcdef"},
    }
    entries = [
        {"part": "divergence", "context": "k", "engines": {name: value}}
        for name, value in found.items()
    ]
    return {"contexts": {"k": context}, "measurements": [speed, *entries]}


def test_speed_shows_times_and_how_many_times_as_fast_layercast_is(peers, record):
    assert peers("tables").speed_table(record, "0.5 B model").splitlines() == [
        "| engine | prefill, batch 8 | decode, batch 8 |",
        "| --- | ---: | ---: |",
        "| layercast | 1,000 ms | 100 ms |",
        "| transformers bf16 | 3,000 ms (3.00×) | 950 ms (9.50×) |",
        "| llama.cpp BF16 | 500 ms (0.50×) | 200 ms (2.00×) |",
    ]


def test_losses_are_named_with_their_size(peers, record):
    assert peers("tables").losses(record).splitlines() == [
        "- prefill, 0.5 B model: llama.cpp BF16 2.00× at batch 8.",
        "- decode, 0.5 B model: none.",
    ]


def test_divergence_says_what_differs_and_what_is_not_given(peers, record):
    assert peers("tables").divergence_table(record).splitlines()[2:] == [
        "| layercast | 0.0 % |  | equal (7,000 positions) | equal (7,000 positions) |",
        "| transformers bf16 | 62.5 % | 51 | 25.0 % of problems differ "
        "| 25.0 % of problems differ |",
        "| vLLM bf16 | 12.5 % | 51 | 25.0 % of problems differ | not given |",
    ]


def test_equality_in_vllm_is_said_only_of_what_was_compared(peers, record):
    tables = peers("tables")
    assert "was not compared" in tables.equality(record)
    beside = {"positions": 1234, "tokens_equal": True, "bits_equal": True}
    entry = {
        "part": "divergence",
        "engines": {"vllm_layercast": _divergence(0.0, None, None, {"layercast": beside})},
    }
    record["measurements"].append(entry)
    assert "1,234 log-probabilities are equal" in tables.equality(record)
    beside["bits_equal"] = False
    assert "**not** equal" in tables.equality(record)


def test_memory_and_setting_are_the_recorded_ones(peers, record):
    tables = peers("tables")
    assert "| layercast | 1.2 s | 0.20 GB | 1.50 GB |" in tables.memory_table(record)
    said = tables.setting(record)
    assert "A CPU, 2 cores, 24 GiB; torch reports AVX2" in said
    assert "2026-12-01 at commit 0123456789" in said
    assert "no measurement" not in said
    record["measurements"][0]["quiet"] = False
    assert "no measurement" in tables.setting(record)
    record["measurements"][0]["quiet"] = True
    record["contexts"]["k"]["trial"] = True
    assert "no measurement" in tables.setting(record)


def test_engines_without_figures_are_named_with_the_reason(peers, record):
    left_out = peers("tables").left_out
    assert left_out(record) == []
    record["contexts"]["k"]["left_out"] = {
        "vllm_bf16": "it was missing, and is there now",
        "vllm_fp32": "vLLM FP32 is left out.",
    }
    record["measurements"][0]["left_out"] = {"published": "it ended"}
    assert left_out(record) == [
        "vLLM FP32 is left out.",
        "LayerCast as published has no speed of 0.5 B model: it ended",
    ]


def test_a_page_without_a_block_is_refused(peers):
    page = '# Title\n\n<div markdown id="a">\nold\n</div>\n\nend\n'
    filled = peers("page").filled(page, {"a": "new"})
    assert filled == '# Title\n\n<div markdown id="a">\n\nnew\n\n</div>\n\nend\n'
    assert peers("page").filled(filled, {"a": "new"}) == filled
    with pytest.raises(ValueError, match="got a"):
        peers("page").filled(page, {"a": "new", "b": "new"})


def test_chart_places_faster_engines_to_the_right_and_diverging_ones_higher(peers, record):
    picture = peers("chart").svg(record)
    dots = re.findall(r'<circle class="(\w+)" cx="([\d.]+)" cy="([\d.]+)"', picture)
    # llama.cpp has no divergence here, vLLM no speed.
    (bf16, ours) = sorted(dots)
    assert (bf16[0], ours[0]) == ("dot", "ours")
    assert float(bf16[1]) < float(ours[1])
    assert float(bf16[2]) < float(ours[2])


def test_labels_that_would_overlap_are_moved_apart_and_keep_their_order(peers):
    spread = peers("chart").spread
    assert spread([10.0, 50.0], 17) == [10.0, 50.0]
    assert spread([10.0, 12.0, 90.0], 17) == [2.5, 19.5, 90.0]
    for wanted in ([5.0] * 6, [0.0, 1.0, 18.0, 19.0, 60.0]):
        found = spread(wanted, 17)
        assert all(b - a >= 17 - 1e-9 for a, b in itertools.pairwise(found))
        assert sum(found) == pytest.approx(sum(wanted))
