"""Two sets of answers to the same problems: where they part, and how it stood there.

Sets come from record files: any two of a run, of two runs, or of two precisions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from layercast.errors import RecordError, first_line
from layercast.study import metrics
from layercast.study.vocabulary import FILE_NAME as VOCABULARY_FILE
from layercast.study.vocabulary import read_vocabulary

_COLUMNS = (
    "problem_id", "sample_index", "prompt_digest", "precision", "config_id", "token_ids",
    "top_ids", "top_logprobs", "top_k", "logprob_digests", "answer", "correct",
)  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A token and its probability on either side; None where it is not among the best there."""

    token: int
    left: float | None
    right: float | None


@dataclass(frozen=True)
class PairOfAnswers:
    """One problem answered on both sides.

    Attributes:
        problem_id: Which problem.
        sample: Which sample of it.
        left_tokens: Token ids.
        right_tokens: Token ids.
        divergence: First position where the tokens differ, None if none does.
        bit_divergence: First shared position whose log-probabilities differ in a bit, or None.
        candidates: At the divergence, the best of either side; empty if nothing diverges.
        answers: The final answers as graded, left and right.
        correct: The grades, left and right.
    """

    problem_id: str
    sample: int
    left_tokens: tuple[int, ...]
    right_tokens: tuple[int, ...]
    divergence: int | None
    bit_divergence: int | None
    candidates: tuple[Candidate, ...]
    answers: tuple[str, str]
    correct: tuple[bool, bool]


@dataclass(frozen=True)
class Pairing:
    """All problems that both sides answered, in the left side's order.

    `only_left` and `only_right` count answers without a counterpart; `pieces` are the bytes of
    tokens, as far as a vocabulary lies beside the records.
    """

    left: str
    right: str
    pairs: tuple[PairOfAnswers, ...]
    only_left: int
    only_right: int
    pieces: dict[int, bytes]

    @property
    def diverging(self) -> int:
        """How many pairs have different tokens."""
        return sum(pair.divergence is not None for pair in self.pairs)

    @property
    def differing_bits(self) -> int:
        """How many pairs have a shared position with different bits."""
        return sum(pair.bit_divergence is not None for pair in self.pairs)


def pair_answers(left: Path, right: Path) -> Pairing:
    """Compare two record files, or two folders of them, answer by answer.

    Args:
        left: A Parquet file of records, or a folder that holds one configuration's.
        right: The same.

    Raises:
        RecordError: a side is no such file, holds several configurations, or the sides asked
            different prompts.
    """
    sides = [_read(left), _read(right)]
    shared = [key for key in sides[0] if key in sides[1]]
    if not shared:
        raise RecordError(
            f"compare: `{left}` and `{right}` must hold answers to the same problems, got none in "
            "common. Compare two configurations of one task."
        )
    for key in shared:
        if len({side[key]["prompt_digest"] for side in sides}) > 1:
            raise RecordError(
                f"compare: `{left}` and `{right}` must have asked the same prompts, got another "
                f"one for {key[0]}. This is not numerics: compare runs with the same problems, "
                "chat template and tokenizer."
            )
    return Pairing(
        left=str(left),
        right=str(right),
        pairs=tuple(_pair(key, sides[0][key], sides[1][key]) for key in shared),
        only_left=len(sides[0]) - len(shared),
        only_right=len(sides[1]) - len(shared),
        pieces={**_pieces(right), **_pieces(left)},
    )


def _read(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    files = [file for file in files if not path.is_dir() or file.name.startswith("batch-")]
    try:
        tables = [pq.ParquetFile(file).read(columns=list(_COLUMNS)) for file in files]
        rows = [row for table in tables for row in table.to_pylist()]
    except (OSError, pa.ArrowException) as error:
        raise _not_records(path, first_line(error)) from error
    if not rows or set(_COLUMNS) - set(rows[0]) - {"sample_index"}:
        raise _not_records(path, "another table" if rows else "no answers")
    kinds = {(row["precision"], row["config_id"]) for row in rows}
    if len(kinds) > 1:
        names = " and ".join(f"{precision}/{config}" for precision, config in sorted(kinds)[:2])
        raise RecordError(
            f"compare: `{path}` must hold one configuration, got {names}. "
            "Name the folder of one, such as RUN/records/bf16/avx2-t1-b8."
        )
    return {(row["problem_id"], row.get("sample_index") or 0): row for row in rows}


def _not_records(path: Path, found: str) -> RecordError:
    return RecordError(
        f"compare: `{path}` must be a Parquet file of records or a folder of them, got: {found}. "
        "Name one of RUN/records/<precision>/<configuration>."
    )


def _pair(key: tuple[str, int], left: dict[str, Any], right: dict[str, Any]) -> PairOfAnswers:
    tokens = left["token_ids"], right["token_ids"]
    index = metrics.divergence_index(tokens)
    digests = [np.array(side["logprob_digests"], dtype=np.uint64) for side in (left, right)]
    return PairOfAnswers(
        problem_id=key[0],
        sample=key[1],
        left_tokens=tuple(tokens[0]),
        right_tokens=tuple(tokens[1]),
        divergence=index,
        bit_divergence=metrics.first_bit_divergence(digests, index),
        candidates=() if index is None else tuple(_candidates(left, right, index)),
        answers=(left["answer"] or "", right["answer"] or ""),
        correct=(bool(left["correct"]), bool(right["correct"])),
    )


def _candidates(left: dict[str, Any], right: dict[str, Any], index: int) -> Iterator[Candidate]:
    sides = [_probabilities(side, index) for side in (left, right)]
    for token in dict.fromkeys([*sides[0], *sides[1]]):
        yield Candidate(token, sides[0].get(token), sides[1].get(token))


def _probabilities(side: dict[str, Any], index: int) -> dict[int, float]:
    """Return the probability of each candidate at a position; none where the answer has ended."""
    k = side["top_k"]
    ids = side["top_ids"][index * k : (index + 1) * k]
    logprobs = np.exp(np.array(side["top_logprobs"][index * k : (index + 1) * k], np.float64))
    return {t: p for t, p in zip(ids, logprobs.tolist(), strict=True) if t >= 0}


def _pieces(path: Path) -> dict[int, bytes]:
    """Return the vocabulary of the run that a record file lies in, if it lies in one."""
    for folder in (path, *path.resolve().parents[:4]):
        if (folder / VOCABULARY_FILE).exists():
            return read_vocabulary(folder)
    return {}


def token_text(tokens: Sequence[int], pieces: dict[int, bytes]) -> str:
    """Return tokens as text; those without a piece as ⟨id⟩."""
    parts = [pieces[t] if t in pieces else f"⟨{t}⟩".encode() for t in tokens]
    return b"".join(parts).decode("utf-8", "replace")
