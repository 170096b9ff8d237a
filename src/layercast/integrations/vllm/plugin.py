"""The entry point: tells vLLM of the quantization method `layercast`."""

from __future__ import annotations

from layercast.integrations.vllm.versions import installed_version


def register() -> None:
    """Register the quantization method and what goes with it; vLLM calls this in every process.

    It may be called any number of times. Models that do not ask for layercast are not touched.
    A release of vLLM that was not tested is refused when a model asks for layercast, not here,
    where it would end vLLM for everyone else too.

    Raises:
        BackendError: vLLM is not installed.
    """
    installed_version()
    from vllm.model_executor.layers.quantization import register_quantization_config

    from layercast.integrations.transformers.config import QUANT_METHOD
    from layercast.integrations.vllm.quantization import LayerCastQuantization
    from layercast.integrations.vllm.workers import prepare_workers

    register_quantization_config(QUANT_METHOD)(LayerCastQuantization)
    prepare_workers()
