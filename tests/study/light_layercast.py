"""Runs a module of the study without `layercast/__init__`, which loads torch and transformers.

``python light_layercast.py layercast.study.worker`` starts in a tenth of the time of
``python -m layercast.study.worker``, so that the runner's tests can start hundreds of workers.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType

SOURCE = Path(__file__).resolve().parents[2] / "src"


def bypass_package_init() -> None:
    """Make `layercast.study` importable while `layercast` itself is an empty package."""
    if "layercast" not in sys.modules:
        package = ModuleType("layercast")
        package.__path__ = [str(SOURCE / "layercast")]
        sys.modules["layercast"] = package
    sys.path[:0] = [str(Path(__file__).parent)]


if __name__ == "__main__":
    bypass_package_init()
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__")
