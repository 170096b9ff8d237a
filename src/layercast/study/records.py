"""The records of a run: one Parquet file a batch, one row an answer.

A run folder holds::

    manifest.json                                   what ran, on what, with which versions
    plan.json                                       the plan as resolved
    problems.parquet                                problems and their prompts, fixed at the start
    vocabulary.parquet                              the bytes each token stands for
    records/<precision>/<config_id>/batch-00003.parquet
    logs/<worker>.log                               what a worker wrote on its standard error

A batch file is complete or absent, and which problems it holds is fixed by the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from layercast.errors import RecordError, first_line
from layercast.study.atomic import write_atomically

ANSWER_SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("precision", pa.string()),
        ("config_id", pa.string()),
        ("isa", pa.string()),
        ("threads", pa.int32()),
        ("batch_size", pa.int32()),
        ("batch_index", pa.int32()),
        ("batch_position", pa.int32()),
        ("prompt_digest", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("token_ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("top_ids", pa.list_(pa.int32())),  # (tokens, top_k), row-major
        ("top_logprobs", pa.list_(pa.float32())),  # (tokens, top_k), row-major
        ("top_k", pa.int32()),
        ("logprob_digests", pa.list_(pa.uint64())),
        ("text", pa.string()),
        ("answer", pa.string()),
        ("expected", pa.string()),
        ("correct", pa.bool_()),
        ("grade_reason", pa.string()),  # as `layercast.grading.Grade.reason`
        ("finish_reason", pa.string()),
        ("output_length", pa.int32()),
        ("sample_index", pa.int32()),  # from 0; which sample of its problem
        ("seed", pa.int64()),  # of the draws; null under greedy decoding
        ("failure", pa.string()),  # why the answer never arrived; empty if it did
        ("attempts", pa.int32()),  # requests it took
        ("batch_seconds", pa.float64()),
    ]
)

PROBLEM_SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("question", pa.string()),
        ("expected", pa.string()),
        ("prompt", pa.string()),
        ("prompt_digest", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
    ]
)

#: Problems and their prompts.
PROBLEMS_FILE = "problems.parquet"

#: Regular expression of the names of batch files.
BATCH_FILE_PATTERN = r"batch-\d{5,}\.parquet"

#: The only columns in which two runs of one plan may differ on one machine.
TIMING_COLUMNS = ("attempts", "batch_seconds")

# Written out in full, these repeat in every row of a file.
_DICTIONARY_COLUMNS = ["precision", "config_id", "isa", "finish_reason", "problem_id", "failure"]


@dataclass(frozen=True)
class BatchState:
    """What a batch file holds: answers, and how many of them never arrived."""

    answers: int
    failed: int


def batch_path(folder: Path, precision: str, config_id: str, batch_index: int) -> Path:
    """Return where the run in `folder` keeps one batch."""
    return folder / "records" / precision / config_id / f"batch-{batch_index:05d}.parquet"


def write_batch(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write one batch of answers; the file is complete or absent.

    Args:
        path: From `batch_path`.
        rows: One dictionary an answer, with the fields of `ANSWER_SCHEMA`.

    Raises:
        RecordError: the file cannot be written.
    """
    _write(path, pa.Table.from_pylist(list(rows), schema=ANSWER_SCHEMA))


def write_problems(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the run's problems and prompts, with the fields of `PROBLEM_SCHEMA`."""
    _write(folder / PROBLEMS_FILE, pa.Table.from_pylist(list(rows), schema=PROBLEM_SCHEMA))


def read_problems(folder: Path) -> pa.Table:
    """Read problems and prompts in the plan's order.

    Raises:
        RecordError: there is no readable ``problems.parquet``.
    """
    path = folder / PROBLEMS_FILE
    try:
        return _read_table(path, None)
    except (OSError, pa.ArrowException) as error:
        raise RecordError(
            f"read_problems: `{path}` must be a readable Parquet file, got: "
            f"{first_line(error)}. Restore it, or run the study into a new folder: the "
            "prompts it holds are fixed at a run's first start."
        ) from error


def precisions(folder: Path) -> list[str]:
    """Return the names of the precisions that have at least one finished batch, sorted."""
    return _folders(folder / "records", "*/*.parquet")


def config_ids(folder: Path, precision: str) -> list[str]:
    """Return the configurations with at least one finished batch of `precision`, sorted."""
    return _folders(folder / "records" / precision, "*.parquet")


def read_answers(
    folder: Path,
    *,
    precision: str,
    config_id: str | None = None,
    columns: Iterable[str] | None = None,
) -> pa.Table:
    """Read the answers of one precision, only the columns asked for.

    Large runs are read a precision, a configuration or a column at a time; nothing else bounds
    what this holds in memory.

    Args:
        folder: The run folder.
        precision: One of `precisions(folder)`.
        config_id: One configuration; all of them if None.
        columns: Names from `ANSWER_SCHEMA`; all of them if None.

    Returns:
        Rows by configuration (sorted), batch index and position in the batch.

    Raises:
        RecordError: no such records, or a file is damaged.
    """
    wanted = list(columns) if columns is not None else ANSWER_SCHEMA.names
    configurations = [config_id] if config_id is not None else config_ids(folder, precision)
    root = folder / "records" / precision
    files = [file for name in configurations for file in sorted((root / name).glob("*.parquet"))]
    if not files:
        raise RecordError(
            f"read_answers: `folder` must hold records of {precision}, got none under {root}. "
            "Run the study into this folder first, or name one of "
            f"{', '.join(precisions(folder)) or 'no precision at all'}."
        )
    return pa.concat_tables(_read(file, wanted) for file in files)


def batch_state(path: Path, *, count_failed: bool = False) -> BatchState | None:
    """Return what a batch file holds, None if it does not exist.

    Args:
        path: From `batch_path`.
        count_failed: Whether to read which answers never arrived; else only the file's footer is
            read and `failed` is 0.

    Raises:
        RecordError: the file is damaged.
    """
    try:
        answers = int(pq.read_metadata(path).num_rows)
        if not count_failed:
            return BatchState(answers, 0)
        reasons = _read_table(path, ["finish_reason"])["finish_reason"].to_pylist()
        return BatchState(answers, reasons.count("failed"))
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _write(path: Path, table: pa.Table) -> None:
    dictionary = [name for name in _DICTIONARY_COLUMNS if name in table.schema.names]
    write_atomically(
        path,
        lambda file: pq.write_table(table, file, compression="zstd", use_dictionary=dictionary),
    )


def _read_table(path: Path, columns: list[str] | None) -> pa.Table:
    # ParquetFile reads this one file; read_table would infer a partition from folder names.
    return pq.ParquetFile(path).read(columns=columns)


def _read(path: Path, columns: list[str] | None) -> pa.Table:
    try:
        return _read_table(path, columns)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> RecordError:
    detail = first_line(error)
    return RecordError(
        f"records: `{path}` must be a readable Parquet file, got: {detail}. "
        "Delete it and start the run again to compute it anew."
    )


def _folders(parent: Path, holding: str) -> list[str]:
    """Return the folders that hold a batch; a killed run leaves some that do not."""
    if not parent.is_dir():
        return []
    return sorted(child.name for child in parent.iterdir() if any(child.glob(holding)))
