"""The instruction set in use and the extension that holds the kernels."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from layercast.errors import BackendError

ISA_VARIABLE = "LAYERCAST_ISA"
ISA_NAMES = ("scalar", "avx2", "avx512", "neon")


def _load_extension() -> ModuleType:
    try:
        csrc = importlib.import_module("layercast.kernels.cpu._csrc")
    except ImportError as error:
        raise BackendError(
            f"layercast: the C++ kernels are not built for this Python ({error}). "
            "Install the package with `pip install .`, or build them in place with `make ext`."
        ) from error
    requested = os.environ.get(ISA_VARIABLE, "")
    if requested and not csrc.select_isa(requested):
        available = ", ".join(csrc.available_isas())
        known = "" if requested in ISA_NAMES else f" (known names: {', '.join(ISA_NAMES)})"
        raise BackendError(
            f"layercast: `{ISA_VARIABLE}` must name an instruction set of this machine, "
            f"got {requested!r}{known}. Available here: {available}; unset it to use the first."
        )
    return csrc


csrc = _load_extension()


def isa() -> str:
    """Name of the instruction set in use: what `LAYERCAST_ISA` says, else the machine's best."""
    return str(csrc.isa())


def available_isas() -> tuple[str, ...]:
    """Names of the instruction sets that this build and this machine both have, best first."""
    return tuple(csrc.available_isas())
