"""Who is compared: each engine at a precision, its program, and the environment that runs it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from layercast.bench.model_worker import ProcessWorker

ROOT = Path(__file__).parents[2]
OURS = "layercast"


@dataclass(frozen=True)
class Environment:
    """Where programs run.

    Attributes:
        folder: Added to the name of the main environment; "" is the one that runs this.
        target: What makes it.
        probe: A distribution's folder in it that shows it is complete.
    """

    folder: str
    target: str
    probe: str

    def python(self, main=Path(sys.prefix)):
        """Return the interpreter; None where the environment has not been made."""
        if not self.folder:
            return Path(sys.executable)
        beside = main.with_name(main.name + self.folder)
        found = any(beside.glob(f"lib/python3*/site-packages/{self.probe}"))
        return beside / "bin" / "python" if found else None


MAIN = Environment("", "", "")
VLLM = Environment("-vllm", "make peers", "vllm")
LLAMA = Environment("-llama", "make peers", "llama_cpp")


@dataclass(frozen=True)
class Engine:
    """An engine at a precision.

    Attributes:
        name: As in records, and as its program knows it.
        label: As in tables.
        program: Module that answers requests.
        environment: Runs it.
        parameter_bytes: Bytes of memory a parameter takes, a float32 copy of one layer aside.
        arithmetic: What products and sums are computed in, in words.
    """

    name: str
    label: str
    program: str
    environment: Environment
    parameter_bytes: int
    arithmetic: str


def _transformers(name, label, parameter_bytes, arithmetic):
    return Engine(name, label, "peers.transformers_process", MAIN, parameter_bytes, arithmetic)


def _vllm(name, label, parameter_bytes, arithmetic):
    return Engine(name, label, "peers.vllm_process", VLLM, parameter_bytes, arithmetic)


def _llama(name, label, parameter_bytes, arithmetic):
    return Engine(name, label, "peers.llama_cpp_process", LLAMA, parameter_bytes, arithmetic)


ENGINES = (
    _transformers(OURS, "layercast", 2, "bf16 weights, FP32 arithmetic in one order"),
    _transformers("stock_bf16", "transformers bf16", 2, "bf16 weights and activations"),
    _transformers("stock_fp16", "transformers fp16", 2, "fp16 weights and activations"),
    _transformers("stock_fp32", "transformers FP32", 4, "FP32 weights and arithmetic"),
    _transformers("published", "LayerCast as published", 2, "bf16 weights, upcast at each product"),
    _vllm("vllm_layercast", "layercast in vLLM", 2, "bf16 weights, FP32 arithmetic in one order"),
    _vllm("vllm_bf16", "vLLM bf16", 2, "bf16 weights and activations"),
    _vllm("vllm_fp32", "vLLM FP32", 4, "FP32 weights and arithmetic"),
    _llama("llama_cpp_bf16", "llama.cpp BF16", 2, "bf16 weights, activations rounded for products"),
    _llama("llama_cpp_f32", "llama.cpp F32", 4, "FP32 weights and arithmetic"),
)

BY_NAME = {engine.name: engine for engine in ENGINES}


def chosen(names=()):
    """Return the engines that can run here, layercast first, and a sentence for each that cannot.

    Args:
        names: Of engines; none: all. layercast is always among them: ratios are to it.

    Raises:
        SystemExit: There is no such engine.
    """
    for name in names:
        if name not in BY_NAME:
            raise SystemExit(
                f"compare_peers: `--engines` must name engines, got {name}. "
                f"Choose among {', '.join(BY_NAME)}."
            )
    wanted = [e for e in ENGINES if not names or e.name in names or e.name == OURS]
    there = [engine for engine in wanted if engine.environment.python() is not None]
    missing = {
        engine.name: f"{engine.label} is left out: its environment is not there. "
        f"`{engine.environment.target}` makes it."
        for engine in wanted
        if engine not in there
    }
    return there, missing


def start(engine, folder, threads, sequences):
    """Start an engine's process on a checkpoint.

    Args:
        engine: Which.
        folder: The checkpoint.
        threads: Of the process.
        sequences: The most that are decoded at once.
    """
    command = [engine.environment.python(), "-m", engine.program]
    paths = [str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": str(threads),
    }
    return ProcessWorker(
        engine.name, [*command, folder, engine.name, threads, sequences], environment
    )
