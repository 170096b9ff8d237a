"""Which files a checkpoint to be converted consists of, and whether it can be."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from layercast.errors import CheckpointError, UnsupportedError
from layercast.integrations.transformers.architectures import check_config
from layercast.integrations.transformers.config import LayerCastConfig
from layercast.integrations.transformers.conversion import prepare_skeleton
from layercast.integrations.transformers.loading import read_config

#: What may lie beside the weights and belongs to the model: tokenizer, chat template, generation
#: settings, model code, model card and licence. Other formats of the weights do not.
_BESIDE = (
    "*.json",
    "*.txt",
    "*.model",
    "*.tiktoken",
    "*.jinja",
    "*.py",
    "*.md",
    "LICENSE*",
    "NOTICE*",
    "additional_chat_templates/*.jinja",
)
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Source:
    """A checkpoint that `layercast.load` would take.

    Attributes:
        folder: Where its files lie.
        weights: Names of its safetensors files, sorted.
        index: Name of the shards' index; None for a single file.
        beside: Names of the other files that belong to it, sorted; config.json is among them.
        options: What a checkpoint that names the method already says; the defaults otherwise.
    """

    folder: Path
    weights: tuple[str, ...]
    index: str | None
    beside: tuple[str, ...]
    options: LayerCastConfig


def open_source(
    path_or_id: str | os.PathLike[str], *, weight_dtype: str | None = None, **hub: Any
) -> Source:
    """Find a checkpoint's files and check that the converted one will load.

    A model is made on the meta device and held against the headers of the files, as loading does
    it; no tensor is read.

    Args:
        path_or_id: A folder or a hub id, which is downloaded unless it is in the local cache.
        weight_dtype: What the weights will be rounded to; None keeps them.
        **hub: `revision`, `token`, `trust_remote_code` and the like, as for `layercast.load`.

    Returns:
        The files.

    Raises:
        CheckpointError: They are missing, out of reach, pickled, quantised by another method or
            do not fit config.json.
        UnsupportedError: The architecture is not covered.
    """
    config, options = read_config(path_or_id, **hub)
    if weight_dtype is not None:
        options.weight_dtype = weight_dtype
    check_config(config)
    folder = _local(path_or_id, hub)
    weights, index = _weights(folder)
    _check_fit(config, [folder / name for name in weights], options, trusted=_trusted(hub))
    taken = {*weights, index}
    found = {str(p.relative_to(folder)) for g in _BESIDE for p in folder.glob(g) if p.is_file()}
    other_indices = {name for name in found if name.endswith(".index.json")}
    return Source(folder, weights, index, tuple(sorted(found - taken - other_indices)), options)


def _trusted(hub: dict[str, Any]) -> bool:
    return bool(hub.get("trust_remote_code"))


def _local(path_or_id: str | os.PathLike[str], hub: dict[str, Any]) -> Path:
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder.resolve()
    options = {k: hub[k] for k in ("revision", "token", "cache_dir") if hub.get(k) is not None}
    try:
        downloaded = snapshot_download(
            os.fspath(path_or_id), allow_patterns=["*.safetensors", *_BESIDE], **options
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"convert: the files of {os.fspath(path_or_id)!r} must be in the local cache or on "
            f"the hub, got: {reason} Connect, or give a local folder."
        ) from error
    return Path(downloaded)


def _weights(folder: Path) -> tuple[tuple[str, ...], str | None]:
    """Names of the safetensors files and of their index, by the precedence of transformers."""
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        return (SAFE_WEIGHTS_NAME,), None
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if not index.is_file():
        raise _without_safetensors(folder)
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"convert: `{index}` must map tensors to files under `weight_map`, got an index that "
            "does not. Fetch the checkpoint again."
        ) from error
    outside = [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise CheckpointError(
            f"convert: every shard that {index.name} names must lie in its folder, got "
            f"{outside[0]!r}, which would be written outside of the new one. Do not trust this "
            "checkpoint, or put its files side by side."
        )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"convert: every shard that {index.name} names must be in {folder}, got none for "
            f"{', '.join(missing[:3])}. The download may be incomplete; fetch it again."
        )
    return tuple(names), index.name


def _without_safetensors(folder: Path) -> CheckpointError:
    pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
    if not pickled:
        return CheckpointError(
            f"convert: `model` must hold {SAFE_WEIGHTS_NAME} or {SAFE_WEIGHTS_INDEX_NAME}, got "
            f"neither in {folder}. Point it at a folder that save_pretrained wrote."
        )
    return CheckpointError(
        f"convert: `model` must hold safetensors files, got the pickle {pickled[0]}, which can run "
        "code when it is opened and is not. If you trust it, load it with transformers, call "
        "save_pretrained on the model and the tokenizer, and convert the folder they wrote."
    )


def _check_fit(
    config: PreTrainedConfig, files: list[Path], options: LayerCastConfig, *, trusted: bool
) -> None:
    try:
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)
    except Exception as error:  # configuration classes raise what they like
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise UnsupportedError(
            "convert: config.json must describe a causal language model of transformers, got "
            f"{reason}. Check `model_type`, or pass --trust-remote-code for a model with its own "
            "code that you have read."
        ) from error
    prepare_skeleton(skeleton, [str(file) for file in files], options)
