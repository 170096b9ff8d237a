"""Rounds a safetensors file to a narrower storage dtype, one tensor in memory at a time."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from layercast.errors import CheckpointError

#: safetensors' names of the dtypes that may be rounded to.
_NAMES = {torch.bfloat16: "BF16", torch.float16: "F16"}
_FLOATS = ("BF16", "F16", "F32", "F64")
_ALIGNMENT = 8


@dataclass(frozen=True)
class Rounded:
    """What rounding a file did.

    Attributes:
        bytes: Of all tensors, after.
        values: Of all floating-point tensors.
        changed: Values that the narrower dtype does not hold exactly.
    """

    bytes: int
    values: int
    changed: int


def round_file(source: Path, target: Path, dtype: torch.dtype) -> Rounded:
    """Write a safetensors file with every floating-point tensor in `dtype`.

    Values round to the nearest, ties to even, as `layercast.load(weight_dtype=...)` rounds them.
    The library writes whole files from memory only, so the format is written here: the header's
    length in 8 bytes, the header as JSON, and the tensors one after the other, those of wider
    elements first, so that all are aligned.

    Args:
        source: A safetensors file.
        target: The file to write.
        dtype: torch.bfloat16 or torch.float16.

    Returns:
        Counts.

    Raises:
        CheckpointError: A finite value lies beyond the range of `dtype`.

    References:
        https://huggingface.co/docs/safetensors, "Format".
    """
    counts = Rounded(0, 0, 0)
    with safe_open(source, framework="pt") as tensors, target.open("wb") as file:
        names = sorted(tensors.keys(), key=lambda name: (-_item_size(tensors, name, dtype), name))
        _write_header(file, tensors, names, dtype)
        for name in names:
            tensor = tensors.get_tensor(name)
            kept, changed = tensor, 0
            if _is_float(tensors, name):
                kept, changed = _round(name, tensor, dtype)
            file.write(_bytes(kept))
            counts = Rounded(
                counts.bytes + kept.nbytes,
                counts.values + (kept.numel() if kept.dtype is dtype else 0),
                counts.changed + changed,
            )
    return counts


def _item_size(tensors: Any, name: str, dtype: torch.dtype) -> int:
    if _is_float(tensors, name):
        return dtype.itemsize
    size: int = tensors.get_tensor(name).element_size()
    return size


def _is_float(tensors: Any, name: str) -> bool:
    return tensors.get_slice(name).get_dtype() in _FLOATS


def _write_header(file: BinaryIO, tensors: Any, names: list[str], dtype: torch.dtype) -> None:
    header: dict[str, Any] = {"__metadata__": tensors.metadata() or {"format": "pt"}}
    start = 0
    for name in names:
        described = tensors.get_slice(name)
        stored, shape = described.get_dtype(), described.get_shape()
        size = tensors.get_tensor(name).nbytes
        if stored in _FLOATS:
            stored, size = _NAMES[dtype], torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": stored, "shape": shape, "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    file.write(struct.pack("<Q", len(text)) + text)


def _round(name: str, tensor: Tensor, dtype: torch.dtype) -> tuple[Tensor, int]:
    rounded = tensor.to(dtype)
    back = rounded.to(tensor.dtype)
    if bool((torch.isinf(back) & torch.isfinite(tensor)).any()):
        raise CheckpointError(
            f"convert: `{name}` must lie within the range of {str(dtype).removeprefix('torch.')}, "
            f"got {tensor.abs().max().item():g}. Choose --weight-dtype bfloat16, or keep the "
            "weights as they are."
        )
    same = (back == tensor) | (torch.isnan(back) & torch.isnan(tensor))
    return rounded, int(tensor.numel() - int(same.sum()))


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
