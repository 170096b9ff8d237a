"""`layercast convert`: a checkpoint whose config.json names the method."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_NAME

from layercast.checkpoints.folder import new_folder, require_free
from layercast.checkpoints.rounding import round_file
from layercast.checkpoints.source import Source, open_source
from layercast.errors import CheckpointError, DtypeError
from layercast.integrations.transformers.config import dtype_name

_ROUNDED_TO = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Converted:
    """A checkpoint that was written.

    Attributes:
        folder: Where.
        weight_files: Names of its safetensors files.
        weight_bytes: Their size together.
        values: Floating-point values that were rounded or were exact already; 0 if copied.
        changed: Of these, how many the narrower dtype does not hold exactly.
    """

    folder: Path
    weight_files: tuple[str, ...]
    weight_bytes: int
    values: int = 0
    changed: int = 0


def convert(
    path_or_id: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    weight_dtype: str | torch.dtype | None = None,
    link: bool = False,
    **hub: Any,
) -> Converted:
    """Write a checkpoint that loads as a LayerCast model without arguments.

    After `import layercast`, `AutoModelForCausalLM.from_pretrained(out)` and `layercast.load(out)`
    give the model that `layercast.load(path_or_id)` gives. Weights are copied file by file, so
    their bits, shards and ties stay; tokenizer, chat template, generation settings, model code and
    licence come along. What is written appears at `out` whole or not at all.

    Args:
        path_or_id: As for `layercast.load`.
        out: A folder that does not exist, or is empty.
        weight_dtype: None keeps every tensor as it is; "bfloat16" or "float16" rounds all of
            them to it, to nearest even: a change of the model, which the result counts.
        link: Link the weight files to those of the source in place of copying them. Then neither
            may be changed in place. On one file system only.
        **hub: `revision`, `token`, `trust_remote_code` and the like, as for `layercast.load`.

    Returns:
        What was written.

    Raises:
        CheckpointError: The source cannot be read, is pickled or quantised, or does not fit its
            config.json; a value lies beyond the range of `weight_dtype`; or `out` is taken or
            cannot be written.
        UnsupportedError: The architecture is not covered.
        DtypeError: `weight_dtype` is another.
    """
    name = dtype_name(weight_dtype, function="convert")
    if name is not None and name not in _ROUNDED_TO:
        raise DtypeError(
            f"convert: `weight_dtype` must be bfloat16 or float16, got {name}: wider weights hold "
            "nothing more. Leave it out to keep them as they are."
        )
    require_free(Path(out))
    source = open_source(path_or_id, weight_dtype=name, **hub)
    with new_folder(Path(out)) as partial:
        for file in source.beside:
            if file != CONFIG_NAME:
                (partial / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source.folder / file, partial / file)
        _write_config(source, partial)
        values, changed = 0, 0
        if name is None:
            _keep(source, partial, link=link)
        else:
            values, changed = _round(source, partial, _ROUNDED_TO[name])
        size = sum((partial / file).stat().st_size for file in source.weights)
    return Converted(Path(out), source.weights, size, values, changed)


def _write_config(source: Source, partial: Path) -> None:
    """Name the method as `save_pretrained` of a loaded model does; keep all else as it was."""
    config = json.loads((source.folder / CONFIG_NAME).read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)  # what older releases call it
    config["dtype"] = "float32"  # of the arithmetic; each tensor keeps its own in the files
    config["quantization_config"] = source.options.to_dict()
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    (partial / CONFIG_NAME).write_text(text + "\n", encoding="utf-8")


def _keep(source: Source, partial: Path, *, link: bool) -> None:
    for file in source.weights:
        origin = (source.folder / file).resolve()  # in the hub's cache a link to a blob
        (partial / file).parent.mkdir(parents=True, exist_ok=True)
        if link:
            _link(origin, partial / file)
        else:
            shutil.copyfile(origin, partial / file)
    if source.index is not None:
        shutil.copyfile(source.folder / source.index, partial / source.index)


def _link(origin: Path, target: Path) -> None:
    try:
        os.link(origin, target)
    except OSError as error:
        raise CheckpointError(
            f"convert: `--link` must be possible from {origin.parent} to {target.parent.parent}, "
            f"got {error.strerror}. Leave it out to copy."
        ) from error


def _round(source: Source, partial: Path, dtype: torch.dtype) -> tuple[int, int]:
    total, values, changed = 0, 0, 0
    for file in source.weights:
        (partial / file).parent.mkdir(parents=True, exist_ok=True)
        rounded = round_file(source.folder / file, partial / file, dtype)
        total += rounded.bytes
        values += rounded.values
        changed += rounded.changed
    if source.index is not None:
        index = json.loads((source.folder / source.index).read_text(encoding="utf-8"))
        index.setdefault("metadata", {})["total_size"] = total
        text = json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False)
        (partial / source.index).write_text(text + "\n", encoding="utf-8")
    return values, changed
