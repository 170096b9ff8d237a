"""Rows of a task: from the hub by `datasets`, or from a local file of the same format."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layercast.errors import EnvironmentSetupError, PlanError, first_line
from layercast.tasks.options import TaskOptions

Row = dict[str, Any]

_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True)
class HubSource:
    """A data set on the hub.

    Args:
        path: ``owner/name``.
        split: Which part.
        name: Configuration; None for the only one.
        data_files: JSON-lines files to read as they are, for data sets whose own loading script
            `datasets` no longer runs.
    """

    path: str
    split: str
    name: str | None = None
    data_files: tuple[str, ...] = ()


def read_rows(sources: Sequence[HubSource], options: TaskOptions) -> list[Row]:
    """Return the rows of a task in order, from `options.file` if there is one.

    Raises:
        PlanError: the file or data set cannot be read.
        EnvironmentSetupError: the hub is asked for and `datasets` is not installed.
    """
    if options.file is not None:
        return read_file(options.file)
    return [row for source in sources for row in read_hub(source, options.revision)]


def read_file(path: Path) -> list[Row]:
    """Read rows from a JSON-lines, JSON (a list of objects), CSV or Parquet file.

    Raises:
        PlanError: it cannot be read, or is not of its suffix's format.
    """
    try:
        rows = list(_parse(path))
    except PlanError:
        raise
    except Exception as error:  # a parser of any of the formats
        reason = getattr(error, "strerror", None) or first_line(error)
        raise PlanError(
            f"load_task: `file` must be a readable {path.suffix or 'data'} file, got {path}: "
            f"{reason}. Correct the file or its name."
        ) from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise PlanError(
            f"load_task: `file` must hold a row an object, got {len(rows)} rows in {path}. "
            "Write one JSON object a line."
        )
    return rows


def _parse(path: Path) -> Iterator[Row]:
    match path.suffix:
        case ".jsonl":
            with path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield _json(line, path, number)
        case ".json":
            yield from json.loads(path.read_text(encoding="utf-8"))
        case ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                yield from csv.DictReader(file)
        case ".parquet":
            import pyarrow.parquet as pq

            yield from pq.ParquetFile(path).read().to_pylist()
        case other:
            raise PlanError(
                f"load_task: `file` must end in one of {', '.join(_SUFFIXES)}, got {other!r} "
                f"({path}). Convert it."
            )


def _json(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise PlanError(
            f"load_task: `file` must hold one JSON object a line, got {path} line {number}: "
            f"{error.msg}. Correct it."
        ) from error


def read_hub(source: HubSource, revision: str | None = None) -> list[Row]:
    """Read a data set from the hub, or from the cache of an earlier download.

    Raises:
        PlanError: it cannot be had: offline, gated, gone, or without such a part.
        EnvironmentSetupError: `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise EnvironmentSetupError(
            f"load_task: `datasets` must be installed to load {source.path} from the hub, got none."
            " Install it: pip install 'layercast[datasets]'; or give a downloaded file with "
            "--task-file."
        ) from error
    try:
        if source.data_files:
            at = f"@{revision}" if revision else ""
            files = [f"hf://datasets/{source.path}{at}/{name}" for name in source.data_files]
            rows = datasets.load_dataset("json", data_files=files, split="train")
        else:
            rows = datasets.load_dataset(
                source.path, source.name, split=source.split, revision=revision
            )
        return [dict(row) for row in rows]
    except Exception as error:  # `datasets` lets through what its HTTP client raises
        raise PlanError(_explain(source, revision, error)) from error


def _explain(source: HubSource, revision: str | None, error: Exception) -> str:
    """Say what went wrong with a data set, and what to do."""
    names = {cls.__name__ for cls in type(error).__mro__}
    said = first_line(error)[:300]
    local = "download its files elsewhere and give one with --task-file"
    if "gated" in str(error) or "GatedRepoError" in names or "401" in said:
        remedy = (
            f"Ask for access at huggingface.co/datasets/{source.path} and log in "
            f"(`hf auth login`), or {local}."
        )
    elif names & {"ConnectionError", "OfflineModeIsEnabled", "TransportError", "Timeout"}:
        remedy = f"Connect to the hub, unset HF_HUB_OFFLINE, or {local}."
    elif names & {"DatasetNotFoundError", "RepositoryNotFoundError", "RevisionNotFoundError"}:
        remedy = f"Correct `revision` if the plan gives one, or {local}."
    elif names & {
        "ValueError",
        "DataFilesNotFoundError",
        "EntryNotFoundError",
        "FileNotFoundError",
    }:
        remedy = f"Its owner may have changed it: name an older `revision`, or {local}."
    else:
        remedy = f"Try again, or {local}."
    wanted = source.name or ", ".join(source.data_files)
    what = "/".join(part for part in (source.path, wanted, source.split) if part)
    return (
        f"load_task: the data set {what} must be on the hub or in its cache, got "
        f"{type(error).__name__}: {said} {'' if revision is None else f'(revision {revision}) '}"
        f"{remedy}"
    )
