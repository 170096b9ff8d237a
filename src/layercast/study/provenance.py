"""What a run was made with: commit, versions, device."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from layercast.study import instruction_sets
from layercast.version import __version__

_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "pyarrow",
    "math-verify",
)

SETTINGS = (
    "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "LAYERCAST_ISA", "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS", "MKL_NUM_THREADS", "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS",
    "ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)  # fmt: skip
"""Environment variables that change bits or speed; no other is recorded, for some hold secrets."""

# The CPU features on which numerical libraries choose their code.
_NUMERICAL_FLAGS = ("fma", "f16c", "avx", "avx2", "asimd", "bf16", "sve")
_NUMERICAL_FLAG_PREFIXES = ("avx512", "avx_", "amx", "sve", "asimd")


def versions() -> dict[str, str]:
    """Return the version of Python, of this package and of those the answers depend on."""
    found = {"python": platform.python_version(), "layercast": __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def device() -> dict[str, Any]:
    """Return the machine: CPU model, the flags that matter to numerics, cores, memory, kernel."""
    flags = instruction_sets.cpu_flags()
    return {
        "kind": "cpu",
        "cpu_model": instruction_sets.cpu_model(),
        "architecture": platform.machine(),
        "cpu_flags": sorted(
            flag
            for flag in flags
            if flag in _NUMERICAL_FLAGS or flag.startswith(_NUMERICAL_FLAG_PREFIXES)
        ),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
    }


def source_state() -> dict[str, Any]:
    """Return the commit this package's code comes from and whether its files were changed since.

    An installed package knows the folder it was installed from; both values are None where
    neither that nor the package itself lies in a git checkout.
    """
    package = Path(__file__).resolve().parent
    for folder in (package, _installed_from()):
        if folder is not None and _git(folder, "ls-files", "--error-unmatch", "."):
            commit = _git(folder, "rev-parse", "HEAD")
            changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
            return {"commit": commit, "dirty": None if changes is None else bool(changes)}
    return {"commit": None, "dirty": None}


def settings() -> dict[str, str]:
    """Return the environment variables of `SETTINGS` that are set."""
    return {name: os.environ[name] for name in SETTINGS if name in os.environ}


def command_line() -> list[str]:
    """Return the arguments this process was given, the program's name without its folder."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def _installed_from() -> Path | None:
    try:
        text = metadata.distribution("layercast").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    url = urlparse(json.loads(text)["url"]) if text else None
    if url is None or url.scheme != "file":
        return None
    folder = Path(unquote(url.path))
    return folder if folder.is_dir() else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
