"""Contract under test: the study's engine `vllm` records what the engine `transformers` records.

Greedy and drawn answers, ranks, batch sizes, chunks and a warm prefix cache: layercast's records
are equal bit for bit; stock ones are not, which is the control.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from layercast.checkpoints import convert
from layercast.study import records
from layercast.study.instruction_sets import available

pytestmark = pytest.mark.vllm

WIDEST = available()[-1]


def _run(folder, plan):
    path = folder.with_suffix(".toml")
    path.write_text(_toml(plan))
    done = subprocess.run(
        [sys.executable, "-m", "layercast", "study", "run", str(path), "--out", str(folder)],
        env={**os.environ, "VLLM_CPU_OMP_THREADS_BIND": "nobind"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=380,
        check=False,
    )
    logs = "\n".join(log.read_text()[-3000:] for log in (folder / "logs").glob("*.log"))
    assert done.returncode == 0, done.stdout + logs


def _toml(plan):
    lines = []
    for key, value in plan.items():
        if isinstance(value, dict):
            lines += [f"[{key}]", _toml(value)]
        else:
            lines.append(f"{key} = {json.dumps(value)}")
    return "\n".join(lines)


def _plan(bundled, engine, *, precisions, axes=None, decoding=None):
    return {
        "model": str(bundled),
        "task": "bundled",
        "problems": 4,
        "precisions": precisions,
        "engine": {"kind": engine},
        "axes": {"instruction_sets": [WIDEST], "threads": [1], "batch_sizes": [4]} | (axes or {}),
        "decoding": {"max_new_tokens": 24, "top_k": 3} | (decoding or {}),
    }


def _answers(folder, precision, config_id):
    table = records.read_answers(folder, precision=precision, config_id=config_id)
    columns = ("problem_id", "token_ids", "logprobs", "top_ids", "top_logprobs", "text")
    digests = table["logprob_digests"].to_pylist()
    return {name: table[name].to_pylist() for name in columns} | {"digests": digests}


@pytest.mark.parametrize(
    "decoding", [{}, {"method": "sampling", "samples": 2}], ids=["greedy", "sampling"]
)
def test_records_of_both_engines_are_equal(bundled, tmp_path, decoding):
    axes = {"batch_sizes": [1, 4], "tensor_parallel": [1, 2]}
    _run(
        tmp_path / "vllm",
        _plan(bundled, "vllm", precisions=["layercast"], axes=axes, decoding=decoding),
    )
    _run(
        tmp_path / "transformers",
        _plan(bundled, "transformers", precisions=["layercast"], decoding=decoding),
    )
    expected = _answers(tmp_path / "transformers", "layercast", f"{WIDEST}-t1-b4")
    for name in ("b1", "b4", "b1-tp2", "b4-tp2"):
        assert _answers(tmp_path / "vllm", "layercast", f"{WIDEST}-t1-{name}") == expected, name
    manifest = json.loads((tmp_path / "vllm" / "manifest.json").read_text())
    assert '"guarantee": "bitwise"' in json.dumps(manifest)


def test_chunks_and_a_warm_cache_change_nothing_and_stock_ranks_do(bundled, tmp_path):
    _run(
        tmp_path / "chunks",
        _plan(bundled, "vllm", precisions=["layercast"], axes={"prefill_chunks": [0, 8]}),
    )
    whole = _answers(tmp_path / "chunks", "layercast", f"{WIDEST}-t1-b4")
    assert _answers(tmp_path / "chunks", "layercast", f"{WIDEST}-t1-b4-chunk8") == whole
    convert(bundled, tmp_path / "converted")  # stock precisions are stock of that one too
    _run(
        tmp_path / "warm",
        _plan(
            tmp_path / "converted",
            "vllm",
            precisions=["fp32", "layercast"],
            axes={"prefix_cache": ["cold", "warm"], "tensor_parallel": [1, 2]},
        ),
    )
    for name in ("b4", "b4-warm", "b4-tp2", "b4-tp2-warm"):
        assert _answers(tmp_path / "warm", "layercast", f"{WIDEST}-t1-{name}") == whole, name
    stock = [_answers(tmp_path / "warm", "fp32", f"{WIDEST}-t1-b4{end}") for end in ("", "-tp2")]
    assert stock[0] != stock[1]
