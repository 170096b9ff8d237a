"""Which kernels compute a call: C++ on the CPU, Triton on CUDA devices."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from layercast.errors import BackendError

P = ParamSpec("P")
T = TypeVar("T")

LOWEST_CAPABILITY = (8, 0)
"""Oldest CUDA compute capability that the Triton kernels are compiled for in the tests."""


POISON = 2**40
"""A position or id that no model has: what is computed from it on a CUDA device is NaN."""


def is_capturing(x: Tensor) -> bool:
    """Whether a CUDA graph is being captured of what is computed from `x`: nothing can be read."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


@lru_cache(maxsize=1)
def triton_kernels() -> Any:
    """The Triton backend, imported when a CUDA tensor first asks for it.

    Raises:
        BackendError: Triton cannot be imported.
    """
    try:
        return importlib.import_module("layercast.kernels.triton")
    except ImportError as error:
        raise BackendError(
            f"layercast: CUDA tensors must be computed by Triton, got none to import ({error}). "
            "Install it with `pip install triton`, or move model and inputs with .to('cpu')."
        ) from error


def by_triton(kernel: Callable[P, T]) -> Callable[P, T]:
    """The function of the Triton backend that has the name and arguments of a C++ `kernel`."""
    namesake: Callable[P, T] = getattr(triton_kernels(), kernel.__name__)
    return namesake


@lru_cache(maxsize=64)
def require_cuda(device: torch.device) -> None:
    """Refuse a CUDA device that the Triton kernels do not run on; remembered once it was let in.

    Args:
        device: Of type "cuda".

    Raises:
        BackendError: torch is a ROCm build or sees no such device, the device is older than
            compute capability 8.0, or Triton is missing.
    """
    remedy = "Move model and inputs with .to('cpu')."
    if torch.version.hip is not None:
        raise BackendError(
            f"layercast: the device must be one of NVIDIA, got {device} of a ROCm build of torch "
            f"({torch.version.hip}), on which no bit has been compared. {remedy}"
        )
    if not torch.cuda.is_available():
        raise BackendError(
            f"layercast: the device must be one that torch can use, got {device} and a torch "
            f"({torch.__version__}) that sees no CUDA device. Install a CUDA build of torch and a "
            f"driver. {remedy}"
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < LOWEST_CAPABILITY:
        found, lowest = (".".join(map(str, pair)) for pair in (capability, LOWEST_CAPABILITY))
        raise BackendError(
            f"layercast: the device must have compute capability {lowest} or newer, got {found} "
            f"of {torch.cuda.get_device_name(device)}. {remedy}"
        )
    triton_kernels()


def require_one_device(function: str, tensors: Iterable[Tensor]) -> torch.device:
    """The one CUDA device that all tensors of a call lie on.

    Raises:
        BackendError: They lie on several devices, or on none that kernels here run on.
    """
    devices = {tensor.device for tensor in tensors}
    if len(devices) != 1 or next(iter(devices)).type != "cuda":
        found = ", ".join(sorted(map(str, devices)))
        raise BackendError(
            f"{function}: tensors must all be on the CPU or all on one CUDA device, got {found}. "
            "Move model and inputs together with .to(device)."
        )
    device = devices.pop()
    require_cuda(device)
    return device
