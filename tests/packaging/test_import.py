"""Contract under test: `import layercast` loads next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {
    "torch", "transformers", "numpy", "pyarrow", "pandas", "plotly", "pydantic", "jinja2", "rich",
    "typer", "math_verify", "datasets", "lm_eval", "ray", "triton", "vllm",
}  # fmt: skip
ROOMS = {"study", "bench", "cli", "tasks", "grading", "checkpoints", "auditing", "modules", "ops"}


def _loaded(statement: str, *, after: str = "import sys") -> set[str]:
    """Return the modules that a statement loads, where others were loaded before."""
    code = (
        f"import sys, json; {after}; before = set(sys.modules); {statement}; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    return set(json.loads(done.stdout))


def test_import_loads_no_library():
    loaded = _loaded("import layercast")
    assert "layercast" in loaded
    assert loaded & HEAVY == set()
    assert {f"layercast.{room}" for room in ROOMS} & loaded == set()


def test_import_beside_transformers_adds_nothing_but_our_own():
    loaded = _loaded("import layercast", after="import torch, transformers")
    assert {name.partition(".")[0] for name in loaded} == {"layercast"}
    assert {f"layercast.{room}" for room in ROOMS} & loaded == set()


def test_what_is_loaded_on_use_is_noticed():
    loaded = _loaded("from layercast import load")
    assert "torch" in loaded
    assert "layercast.modules" in loaded
