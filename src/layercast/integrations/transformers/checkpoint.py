"""Storage dtypes of a checkpoint, read from its safetensors headers."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from layercast.errors import CheckpointError
from layercast.integrations.transformers.replacement import is_left_out

_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
# How tensors end that stand in a weight's place, or scale it: of GPTQ and AWQ, compressed-tensors,
# FP8, bitsandbytes, MXFP4.
_OF_QUANTISED = (
    ".qweight",
    ".qzeros",
    ".weight_packed",
    ".weight_scale",
    ".weight_scale_inv",
    ".weight.absmax",
    ".SCB",
    "_proj_blocks",
)


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
    model: PreTrainedModel,
    files: Sequence[str] | None,
    weight_dtype: torch.dtype | None,
    *,
    left_out: Sequence[str] = (),
) -> dict[str, torch.dtype]:
    """The storage dtype of every parameter of a model about to be loaded.

    A parameter that the loader merges from several tensors (experts) gets the narrowest dtype
    that holds them all exactly. One of a module that stays stock is float32, as stock arithmetic
    in float32 needs it, and so is one tied to it.

    Args:
        model: The skeleton, on the meta device, before its modules are replaced.
        files: The checkpoint's files as transformers resolved them.
        weight_dtype: Stores all parameters so; None keeps the checkpoint's dtypes.
        left_out: Modules that stay stock; see `replacement.is_left_out`.

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
    _refuse_quantised(stored)
    sources = _sources(model, stored)
    tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
    tied |= {source: target for target, source in tied.items()}
    dtypes: dict[str, torch.dtype] = {}
    missing: list[str] = []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        keys = sources.get(name) or sources.get(tied.get(name, ""))
        if keys is None:
            missing.append(name)
            continue
        held = [_storage_dtype(key, stored[key].dtype, weight_dtype) for key in keys.names]
        if not keys.converted:
            _check_shape(keys.names[0], stored, parameter)
        stays_stock = any(is_left_out(n, left_out) for n in (name, tied.get(name, name)))
        dtypes[name] = torch.float32 if stays_stock else functools.reduce(torch.promote_types, held)
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
                "from the loader. Use a transformers release between 5.17 and 5.24, and report "
                "this checkpoint."
            )


class _Sources(NamedTuple):
    """The checkpoint's tensors that a parameter is made from; converted: not taken as they are."""

    names: list[str]
    converted: bool


def _sources(model: PreTrainedModel, stored: Mapping[str, StoredTensor]) -> dict[str, _Sources]:
    """Parameter to its tensors, by the renamings and conversions that the loader will use."""
    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    converter_of = {pattern: c for c in converters for pattern in c.source_patterns}
    skeleton = model.state_dict()
    prefix = model.base_model_prefix
    sources: dict[str, _Sources] = {}
    for key in stored:
        name, pattern = rename_source_key(key, renamings, converters, prefix, skeleton)
        if name not in skeleton and key in skeleton:
            name, pattern = rename_source_key(key, [], [], prefix, skeleton)
        names = [name]
        if pattern is not None:
            first, *others = converter_of[pattern].target_patterns
            names += [name.replace(first, other) for other in others]
        for target in names:
            sources.setdefault(target, _Sources([], pattern is not None)).names.append(key)
    return sources


def _check_shape(key: str, stored: Mapping[str, StoredTensor], parameter: Tensor) -> None:
    if stored[key].shape != tuple(parameter.shape):
        raise CheckpointError(
            f"layercast: `{key}` must have the shape {tuple(parameter.shape)} that config.json "
            f"gives, got {stored[key].shape}. Check that config.json belongs to these weights."
        )


def _refuse_quantised(stored: Mapping[str, StoredTensor]) -> None:
    """Refuse by its tensors a checkpoint whose config.json does not call it quantised."""
    for name in stored:
        if name.endswith(_OF_QUANTISED):
            raise CheckpointError(
                f"layercast: the checkpoint must hold its weights themselves, got `{name}` of "
                "quantised ones. Load the original, unquantised checkpoint."
            )


def _storage_dtype(key: str, stored: str, asked: torch.dtype | None) -> torch.dtype:
    """Of a tensor: as stored, or as asked for where that is a rounding or a widening of a float."""
    if stored in _DTYPES:
        return asked or _DTYPES[stored]
    if stored == "F64":
        if asked is not None:
            return asked
        raise CheckpointError(
            f"layercast: `{key}` must be stored in bfloat16, float16 or float32, got float64, "
            "which would be rounded. Accept that with weight_dtype='float32'."
        )
    raise CheckpointError(
        f"layercast: `{key}` must be stored in bfloat16, float16 or float32, got {stored}. "
        "Quantised weights are not supported: load the original, unquantised checkpoint."
    )
