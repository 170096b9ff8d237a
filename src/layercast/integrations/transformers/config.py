"""The quantization configuration that config.json carries."""

from __future__ import annotations

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
    """

    def __init__(
        self,
        weight_dtype: str | torch.dtype | None = None,
        quant_method: str = QUANT_METHOD,
        **unknown: Any,
    ) -> None:
        """Check and keep the options.

        Args:
            weight_dtype: See the class.
            quant_method: Always "layercast"; present because config.json has it.
            **unknown: Refused.

        Raises:
            DtypeError: `weight_dtype` is not a storage dtype.
            ValueRangeError: Another method, or an option this version does not know.
        """
        if quant_method != QUANT_METHOD:
            raise ValueRangeError(
                f"LayerCastConfig: `quant_method` must be {QUANT_METHOD!r}, got {quant_method!r}. "
                "Use the configuration class of that method."
            )
        if unknown:
            raise ValueRangeError(
                "LayerCastConfig: options must be `weight_dtype`, got "
                f"{', '.join(sorted(unknown))}. Remove them, or update layercast if a newer "
                "version wrote this config.json."
            )
        self.quant_method = QUANT_METHOD
        self.weight_dtype = dtype_name(weight_dtype, function="LayerCastConfig")

    @property
    def storage_dtype(self) -> torch.dtype | None:
        """`weight_dtype` as a torch dtype."""
        return None if self.weight_dtype is None else STORAGE_DTYPES[self.weight_dtype]


def dtype_name(weight_dtype: str | torch.dtype | None, *, function: str) -> str | None:
    """The name of a storage dtype given by name or as a torch dtype.

    Args:
        weight_dtype: "bfloat16", torch.bfloat16 and the like; None passes through.
        function: Named in the error.

    Returns:
        "bfloat16", "float16", "float32" or None.

    Raises:
        DtypeError: Anything else.
    """
    if weight_dtype is None:
        return None
    name = str(weight_dtype).removeprefix("torch.")
    if name not in STORAGE_DTYPES:
        raise DtypeError(
            f"{function}: `weight_dtype` must be one of {', '.join(STORAGE_DTYPES)}, got "
            f"{weight_dtype!r}. Leave it out to keep each tensor as the checkpoint stores it."
        )
    return name
