"""The method that a converted checkpoint's config.json names: its options, or the model without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from layercast.integrations.transformers.config import QUANT_METHOD

_KV_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def method_options(folder: Path, kv_dtype: str) -> dict[str, Any]:
    """Return the options of the method for a configuration, as `LayerCastConfig` takes them.

    Args:
        folder: The checkpoint.
        kv_dtype: Of the configuration: ``default`` leaves what the checkpoint was converted with,
            as it leaves every other option.
    """
    chosen = {} if kv_dtype == "default" else {"kv_dtype": _KV_DTYPES[kv_dtype]}
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return chosen  # the loader says what is wrong with it
    saved = dict(config.get("quantization_config") or {})
    return {**saved, **chosen} if saved.pop("quant_method", None) == QUANT_METHOD else chosen


def without_method(config: Any) -> Any:
    """Take the method out of a converted checkpoint's configuration, which would be stock in name.

    Args:
        config: Of transformers; changed in place.

    Returns:
        The configuration.
    """
    found = getattr(config, "quantization_config", None)
    if found is not None:
        options = found if isinstance(found, dict) else found.to_dict()
        if options.get("quant_method") == QUANT_METHOD:
            del config.quantization_config
    return config
