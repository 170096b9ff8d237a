"""The two halves of making a LayerCast model: before its weights are loaded, and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel

from layercast.integrations.transformers.architectures import check_class, check_modules
from layercast.integrations.transformers.attention import ATTENTION
from layercast.integrations.transformers.checkpoint import check_loaded_dtypes, storage_dtypes
from layercast.integrations.transformers.guard import guard_model
from layercast.integrations.transformers.replacement import replace_modules


def prepare_skeleton(
    model: PreTrainedModel, files: Sequence[str] | None, weight_dtype: torch.dtype | None
) -> dict[str, torch.dtype]:
    """Swap modules while the model is on the meta device.

    Giving parameters their storage dtype makes the loader keep it and leave safetensors
    memory-mapped, so that nothing is ever materialised in float32.

    Args:
        model: The skeleton.
        files: The checkpoint's files.
        weight_dtype: Stores all parameters so; None keeps the checkpoint's dtypes.

    Returns:
        Storage dtype of each parameter.

    Raises:
        UnsupportedError: The model holds something that the contract does not cover.
        CheckpointError: The files do not fit the model or need rounding.
    """
    check_class(model)
    dtypes = storage_dtypes(model, files, weight_dtype)
    replace_modules(model, dtypes)
    check_modules(model)
    model.config._attn_implementation = ATTENTION
    return dtypes


def finish_model(model: PreTrainedModel, dtypes: Mapping[str, torch.dtype]) -> None:
    """Check what was loaded and attach the refusals.

    Args:
        model: With its weights.
        dtypes: What `prepare_skeleton` returned.

    Raises:
        CheckpointError: The loader changed a dtype.
    """
    check_loaded_dtypes(model, dtypes)
    guard_model(model)
