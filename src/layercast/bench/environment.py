"""The circumstances of a run, without which its times say nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import torch

from layercast import NUMERICS_VERSION, ops
from layercast.bench.caches import caches
from layercast.study import provenance

# A subprocess, for the library reports once, when it is first used.
_ONEDNN_PROGRAM = (
    "import torch; torch.nn.functional.linear(*(torch.ones(64, 64).bfloat16() for _ in '12'))"
)


def context() -> dict[str, Any]:
    """Return device, versions, commit, and the state of torch that bears on speed."""
    device = provenance.device() | {"cache_bytes": caches()}
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "arguments": provenance.command_line(),
        "source": provenance.source_state(),
        "versions": provenance.versions(),
        "device": device,
        "load_average": os.getloadavg()[0],
        "settings": provenance.settings(),
        "layercast": {"isa": ops.isa(), "numerics_version": NUMERICS_VERSION},
        "torch": torch_state(),
    }


def torch_state() -> dict[str, Any]:
    """Return threads, instruction sets and precision settings of stock torch."""
    config = torch.__config__.show()
    return {
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "inference_mode": True,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "mkldnn_enabled": bool(getattr(torch.backends.mkldnn, "enabled", True)),
        "mkl": _first(r"Math Kernel Library Version ([\w.]+)", config),
        "onednn": _first(r"MKL-DNN v([\w.]+)", config),
        "flush_denormal": torch.tensor(1e-40).mul(1.0).item() == 0.0,
    } | onednn_state()


def onednn_state() -> dict[str, str | None]:
    """Return the instruction sets oneDNN reports, and the code it takes for a bf16 product."""
    environment = os.environ | {"ONEDNN_VERBOSE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _ONEDNN_PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "onednn_isa": _first(r"info,cpu,isa:(.+)", done.stdout),
        "onednn_bf16_linear": _first(r"exec,cpu,(?:matmul|inner_product),([^,]+)", done.stdout),
    }


def processor_slug(device: dict[str, Any]) -> str:
    """Return the processor's name and cores as a file name, e.g. "intel-xeon-processor-2-cores".

    Args:
        device: What `context` says of it.
    """
    name = re.sub(r"\((?:R|TM|tm|r)\)|@.*", "", str(device["cpu_model"]))
    words = re.findall(r"[a-z0-9.]+", name.lower())
    return "-".join([*words, str(device["usable_cores"]), "cores"])


def _first(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1].strip() if match else None
