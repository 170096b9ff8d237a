"""The entry point: tells vLLM of the quantization method `layercast`."""

from __future__ import annotations

import warnings

from layercast.errors import CoverageWarning
from layercast.integrations.vllm.versions import installed_version, is_tested


def register() -> None:
    """Register the quantization method and what goes with it; vLLM calls this in every process.

    It may be called any number of times. Models that do not ask for layercast are not touched.
    A release of vLLM that was not tested is refused when a model asks for layercast, not here,
    where it would end vLLM for everyone else too.

    Raises:
        BackendError: vLLM is not installed.
    """
    version = installed_version()
    try:
        _register()
    except (ImportError, AttributeError) as error:
        if is_tested(version):
            raise
        warnings.warn(
            f"layercast: the quantization method is not there in vLLM {version}, whose parts are "
            f"others than those of the releases that were tested ({error}).",
            CoverageWarning,
            stacklevel=2,
        )


def _register() -> None:
    from vllm.model_executor.layers.quantization import register_quantization_config

    from layercast.integrations.transformers.config import QUANT_METHOD
    from layercast.integrations.vllm.quantization import LayerCastQuantization
    from layercast.integrations.vllm.workers import prepare_workers

    register_quantization_config(QUANT_METHOD)(LayerCastQuantization)
    prepare_workers()
