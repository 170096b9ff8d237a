"""Storage dtypes of a checkpoint, read from its safetensors headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from layercast.errors import CheckpointError

_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


class StoredTensor(NamedTuple):
    """What a safetensors header says of a tensor.

    Attributes:
        dtype: By safetensors' name: "BF16", "F32", ...
        shape: Of the tensor.
    """

    dtype: str
    shape: tuple[int, ...]


def read_headers(files: Sequence[str]) -> dict[str, StoredTensor]:
    """Describe every tensor of a checkpoint without reading any.

    Args:
        files: Paths of safetensors files, the shards of one checkpoint.

    Returns:
        Tensor name to its description.

    Raises:
        CheckpointError: A file is not safetensors, or is damaged.
    """
    stored: dict[str, StoredTensor] = {}
    for file in files:
        if not file.endswith(".safetensors"):
            raise CheckpointError(
                f"layercast: checkpoint files must be safetensors, got {Path(file).name}. Convert "
                "it: load it with transformers and call save_pretrained, then point layercast at "
                "the new folder."
            )
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - a safe_open, not a dict
                    header = tensors.get_slice(name)
                    stored[name] = StoredTensor(header.get_dtype(), tuple(header.get_shape()))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"layercast: `{file}` must be a readable safetensors file, got: {error}. "
                "The download may be incomplete; fetch it again."
            ) from error
    return stored


def storage_dtypes(
    model: PreTrainedModel, files: Sequence[str] | None, weight_dtype: torch.dtype | None
) -> dict[str, torch.dtype]:
    """The storage dtype of every parameter of a model about to be loaded.

    Args:
        model: The skeleton, on the meta device, before its modules are replaced.
        files: The checkpoint's files as transformers resolved them.
        weight_dtype: Stores all parameters so; None keeps the checkpoint's dtypes.

    Returns:
        Parameter name to dtype.

    Raises:
        CheckpointError: No safetensors files; a parameter is missing from them or has
            another shape there; or one is stored in a dtype that would have to be rounded.
    """
    if not files:
        raise CheckpointError(
            "layercast: the checkpoint must consist of safetensors files, got none. "
            "Load from a folder or a hub id rather than from a `state_dict`."
        )
    stored = read_headers(files)
    tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
    tied |= {source: target for target, source in tied.items()}
    dtypes: dict[str, torch.dtype] = {}
    missing: list[str] = []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        key = _key_of(name, model, stored) or _key_of(tied.get(name), model, stored)
        if key is None:
            missing.append(name)
            continue
        if stored[key].shape != tuple(parameter.shape):
            raise CheckpointError(
                f"layercast: `{key}` must have the shape {tuple(parameter.shape)} that config.json "
                f"gives, got {stored[key].shape}. Check that config.json belongs to these weights."
            )
        dtypes[name] = weight_dtype or _storage_dtype(key, stored[key].dtype)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise CheckpointError(
            f"layercast: every parameter must be in the checkpoint, got none for "
            f"{', '.join(missing[:3])}{more}. transformers would fill them with random numbers; "
            "check that config.json belongs to these weights."
        )
    return dtypes


def check_loaded_dtypes(model: nn.Module, dtypes: Mapping[str, torch.dtype]) -> None:
    """Check that the loader kept every planned storage dtype.

    Args:
        model: After loading.
        dtypes: What `storage_dtypes` planned.

    Raises:
        CheckpointError: A parameter came out in another dtype.
    """
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in dtypes and parameter.dtype is not dtypes[name]:
            raise CheckpointError(
                f"layercast: `{name}` must be stored as {dtypes[name]}, got {parameter.dtype} "
                "from the loader. Use a transformers release between 5.17 and 5.23, and report "
                "this checkpoint."
            )


def _key_of(
    name: str | None, model: PreTrainedModel, stored: Mapping[str, StoredTensor]
) -> str | None:
    """The checkpoint's name of a parameter; one of a bare base model lacks the prefix."""
    if name is None:
        return None
    prefix = f"{model.base_model_prefix}."
    for key in (name, name.removeprefix(prefix), prefix + name):
        if key in stored:
            return key
    return None


def _storage_dtype(key: str, stored: str) -> torch.dtype:
    if stored in _DTYPES:
        return _DTYPES[stored]
    if stored == "F64":
        raise CheckpointError(
            f"layercast: `{key}` must be stored in bfloat16, float16 or float32, got float64, "
            "which would be rounded. Accept that with weight_dtype='float32'."
        )
    raise CheckpointError(
        f"layercast: `{key}` must be stored in bfloat16, float16 or float32, got {stored}. "
        "Quantised weights are not supported: load the original, unquantised checkpoint."
    )
