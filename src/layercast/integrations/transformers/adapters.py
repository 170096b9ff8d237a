"""LoRA and other adapters (peft): refused, for they add stock arithmetic beside our modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layercast.errors import UnsupportedError

_REMEDY = (
    "Merge it into the weights: load the base model in float32 with transformers, then "
    "PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(folder), and "
    "load that folder; weight_dtype='bfloat16' stores it in 16 bits again."
)


def refuse_adapters(model: Any) -> None:
    """Refuse to run a model that holds adapters: their matrices are multiplied by stock operations.

    One that peft has merged and unloaded is a model like any other; merging into 16-bit weights
    has rounded the sums to 16 bits.

    Args:
        model: The model with its head, or its decoder.

    Raises:
        UnsupportedError: peft has put its configuration on the model.
    """
    if "peft_config" in model.__dict__ or model.__dict__.get("_hf_peft_config_loaded"):
        raise UnsupportedError(
            "layercast: the model must be without adapters, got one that peft has changed. "
            + _REMEDY
        )


def refuse_adapter_folder(folder: Path) -> None:
    """Refuse a folder that holds an adapter in place of a model.

    Args:
        folder: What is to be loaded.

    Raises:
        UnsupportedError: It has an adapter_config.json.
    """
    if (folder / "adapter_config.json").is_file():
        raise UnsupportedError(
            f"load: `path_or_id` must hold a model, got the adapter {str(folder)!r}. {_REMEDY}"
        )
