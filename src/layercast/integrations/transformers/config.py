"""The quantization configuration that config.json carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.utils.quantization_config import QuantizationConfigMixin

from layercast.errors import DtypeError, ValueRangeError

QUANT_METHOD = "layercast"
STORAGE_DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}


class LayerCastConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """LayerCast: weights stay in their storage dtype, all arithmetic is float32 in a fixed order.

    Pass it to any `from_pretrained` as `quantization_config`, or use
    `layercast.load`. `save_pretrained` writes it into config.json, and such a
    checkpoint loads without arguments once layercast is imported.

    Attributes:
        weight_dtype: None keeps every tensor in the dtype the checkpoint stores
            it in; "bfloat16", "float16" or "float32" stores all of them in that
            dtype, rounding to nearest even where it is narrower.
        kv_dtype: What keys and values are kept in: "float32", or "bfloat16" or "float16", which
            halves the cache. Rounding to 16 bits happens before any use, in the call that makes
            them too, so that every invariance holds; the results are those of a less precise
            model, and its own row of the guarantees.
        modules_to_not_convert: Modules that stay stock, by whole components of their names
            ("lm_head", "layers.0.mlp"). Their weights are held in float32 and their arithmetic
            has no fixed order: the guarantee does not hold, and `audit` names them.
        context_length: Longest sequence that will be run, in tokens. Only rope scalings that
            transformers derives from the longest position of a batch (dynamic, longrope) use
            it: they are fixed for that length, and longer sequences are refused. None: the
            length of pretraining.
    """

    def __init__(
        self,
        weight_dtype: str | torch.dtype | None = None,
        kv_dtype: str | torch.dtype = "float32",
        modules_to_not_convert: Sequence[str] | None = None,
        context_length: int | None = None,
        quant_method: str = QUANT_METHOD,
        **unknown: Any,
    ) -> None:
        """Check and keep the options.

        Args:
            weight_dtype: See the class.
            kv_dtype: See the class.
            modules_to_not_convert: See the class.
            context_length: See the class.
            quant_method: Always "layercast"; present because config.json has it.
            **unknown: Refused.

        Raises:
            DtypeError: `weight_dtype` or `kv_dtype` is not a storage dtype.
            ValueRangeError: Another method, or an option or value this version does not know.
        """
        if quant_method != QUANT_METHOD:
            raise ValueRangeError(
                f"LayerCastConfig: `quant_method` must be {QUANT_METHOD!r}, got {quant_method!r}. "
                "Use the configuration class of that method."
            )
        if unknown:
            raise ValueRangeError(
                "LayerCastConfig: options must be `weight_dtype`, `kv_dtype`, "
                "`modules_to_not_convert` or `context_length`, got "
                f"{', '.join(sorted(unknown))}. Remove them, or update layercast if a newer "
                "version wrote this config.json."
            )
        if context_length is not None and context_length < 1:
            raise ValueRangeError(
                f"LayerCastConfig: `context_length` must be at least 1, got {context_length}. Give "
                "the longest sequence in tokens, or leave it out."
            )
        left_out = modules_to_not_convert
        if isinstance(left_out, str) or not all(isinstance(m, str) and m for m in left_out or ()):
            raise ValueRangeError(
                "LayerCastConfig: `modules_to_not_convert` must be a list of module names, got "
                f"{left_out!r}. For example ['lm_head']."
            )
        self.quant_method = QUANT_METHOD
        self.weight_dtype = dtype_name(weight_dtype, function="LayerCastConfig")
        name = dtype_name(kv_dtype, function="LayerCastConfig", argument="kv_dtype")
        self.kv_dtype = name or "float32"
        self.modules_to_not_convert = list(left_out) if left_out else None
        self.context_length = context_length

    @property
    def storage_dtype(self) -> torch.dtype | None:
        """`weight_dtype` as a torch dtype."""
        return None if self.weight_dtype is None else STORAGE_DTYPES[self.weight_dtype]

    @property
    def cache_dtype(self) -> torch.dtype:
        """`kv_dtype` as a torch dtype."""
        return STORAGE_DTYPES[self.kv_dtype]


def cache_dtype_of(config: Any) -> torch.dtype:
    """What a model keeps its keys and values in.

    Args:
        config: Of the model; its `quantization_config` is asked.

    Returns:
        float32 for a model that says nothing.
    """
    options = getattr(config, "quantization_config", None)
    return options.cache_dtype if isinstance(options, LayerCastConfig) else torch.float32


def dtype_name(
    dtype: str | torch.dtype | None, *, function: str, argument: str = "weight_dtype"
) -> str | None:
    """The name of a storage dtype given by name or as a torch dtype.

    Args:
        dtype: "bfloat16", torch.bfloat16 and the like; None passes through.
        function: Named in the error.
        argument: Named in the error.

    Returns:
        "bfloat16", "float16", "float32" or None.

    Raises:
        DtypeError: Anything else.
    """
    if dtype is None:
        return None
    name = str(dtype).removeprefix("torch.")
    if name not in STORAGE_DTYPES:
        raise DtypeError(
            f"{function}: `{argument}` must be one of {', '.join(STORAGE_DTYPES)}, got {dtype!r}. "
            "Leave it out for the default."
        )
    return name
