"""What vLLM can be asked for that the contract does not cover: refused before a model is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from vllm.logger import init_logger
from vllm.platforms import current_platform

from layercast.errors import GuaranteeError, UnsupportedError
from layercast.integrations.transformers.config import LayerCastConfig

ALLOW = "LAYERCAST_VLLM_ALLOW_UNCOVERED"
"""Environment variable: "1" serves what is not covered, with the guarantee marked off."""

_KV_DTYPES = {
    "float32": ("auto", "float32"),
    "bfloat16": ("bfloat16",),
    "float16": ("float16",),
}
_RAW = ("raw_logprobs", "raw_logits")

logger = init_logger("vllm.layercast")


def uncovered_allowed() -> bool:
    """Whether the user asked to serve what is not covered."""
    return os.environ.get(ALLOW) == "1"


def refuse_or_mark(what: str) -> str:
    """Refuse something, or say in the log that the guarantee is off where the user allowed it.

    Args:
        what: The obstacle, a sentence without its end.

    Returns:
        The same.

    Raises:
        UnsupportedError: The user did not allow it.
    """
    if not uncovered_allowed():
        raise UnsupportedError(
            f"layercast: {what}. Set {ALLOW}=1 to serve it all the same, without the guarantee."
        )
    logger.warning("layercast: the guarantee is OFF: %s.", what)
    return what


def check_settings(vllm_config: Any, options: LayerCastConfig) -> list[str]:
    """Refuse settings that would void the guarantee.

    Args:
        vllm_config: Of the engine.
        options: Of the quantization method.

    Returns:
        What voids it where the user allowed that.

    Raises:
        UnsupportedError: See `refuse_or_mark`.
        GuaranteeError: The dtypes of activations or of the cache are not those of the method.
    """
    if str(vllm_config.model_config.dtype) != "torch.float32":
        raise GuaranteeError(
            "layercast: `--dtype` must be float32, that of activations, got "
            f"{vllm_config.model_config.dtype}. Weights stay as the checkpoint stores them."
        )
    cache = str(vllm_config.cache_config.cache_dtype)
    expected = _KV_DTYPES[options.kv_dtype]
    if cache not in expected:
        raise GuaranteeError(
            f"layercast: `--kv-cache-dtype` must be {' or '.join(expected)} to fit kv_dtype = "
            f"{options.kv_dtype!r} of the checkpoint's quantization_config, got {cache}."
        )
    return [refuse_or_mark(obstacle) for obstacle in _obstacles(vllm_config)]


def _obstacles(vllm_config: Any) -> Iterator[str]:
    if not current_platform.is_cpu():
        device = current_platform.device_type
        yield f"the platform must be CPU, on which the plugin was tested, got {device}"
    parallel = vllm_config.parallel_config
    for name in (
        "pipeline_parallel_size",
        "decode_context_parallel_size",
        "prefill_context_parallel_size",
    ):
        if getattr(parallel, name, 1) != 1:
            yield f"`{name}` must be 1, got {getattr(parallel, name)}"
    if vllm_config.speculative_config is not None:
        yield "speculative decoding must be off: drafts are accepted by a rule of its own"
    if vllm_config.lora_config is not None:
        yield "LoRA must be off: its layers sum in an order of their own"
    if vllm_config.cache_config.kv_cache_dtype_skip_layers:
        yield "`--kv-cache-dtype-skip-layers` must be left out: all layers have one kv_dtype"
    if vllm_config.kv_transfer_config is not None:
        yield (
            "`--kv-transfer-config` and `--kv-offloading-size` must be left out: nobody has "
            "checked what comes back from a store of keys and values"
        )
    if vllm_config.watermark_config is not None:
        yield "watermarks must be off: tokens are drawn by a rule that leaves none"
    if vllm_config.model_config.enable_prompt_embeds:
        yield "`--enable-prompt-embeds` must be off: an answer is one to its prompt's tokens"
    mode = vllm_config.model_config.logprobs_mode
    if mode not in _RAW:
        yield f"`--logprobs-mode` must be {' or '.join(_RAW)}, got {mode}"
    if vllm_config.model_config.runner_type != "generate":
        yield f"`--runner` must be generate, got {vllm_config.model_config.runner_type}"


def attention_obstacle(layer: Any) -> str | None:
    """What a stock attention layer asks for that the contract does not cover.

    Args:
        layer: An attention layer of vLLM, with the implementation that vLLM chose.

    Returns:
        The obstacle in words; None if there is none.
    """
    impl = layer.impl
    if layer.attn_type != "decoder":
        return f"attention of type {layer.attn_type!r}"
    if getattr(impl, "alibi_slopes", None) is not None:
        return "attention with ALiBi slopes"
    if getattr(impl, "sinks", None) is not None:
        return "attention with sinks"
    if layer.kv_sharing_target_layer_name is not None:
        return "attention over another layer's cache"
    if layer.head_size != layer.head_size_v:
        return "attention with values of another width than keys"
    if layer.query_quant is not None:
        return "attention with quantized queries"
    return None
