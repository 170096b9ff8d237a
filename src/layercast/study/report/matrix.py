"""The answers of one or several run folders as a matrix: precisions x configurations x problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layercast.study.answers import AnswerTables, Source, open_answers
from layercast.study.records import read_problems
from layercast.study.report.packing import Answer, ProblemAnswers
from layercast.study.resolution import Configuration
from layercast.study.vocabulary import read_vocabulary

_COLUMNS = (
    "token_ids",
    "logprob_digests",
    "top_ids",
    "top_logprobs",
    "top_k",
    "correct",
    "answer",
)


@dataclass(frozen=True)
class Matrix:
    """Answers by problem, precision and configuration.

    Attributes:
        precisions: Names, in the order of the page.
        sources: The configurations that any precision has, in the order of the page.
        problems: One entry a problem; `slots[p][c]` follow the two lists above.
    """

    precisions: tuple[str, ...]
    sources: tuple[Source, ...]
    problems: tuple[ProblemAnswers, ...]

    def answers(self, precision: int) -> list[list[Answer | None]]:
        """Problems x configurations under one precision."""
        return [list(problem.slots[precision]) for problem in self.problems]

    def compared(self, precision: int) -> list[list[Answer | None]]:
        """The same, without the configurations that lack an answer to any problem."""
        rows = self.answers(precision)
        complete = [None not in column for column in zip(*rows, strict=True)]
        return [
            [a if whole else None for a, whole in zip(row, complete, strict=True)] for row in rows
        ]

    def configuration(self, place: int) -> Configuration:
        """The configuration of `sources[place]`, by axis."""
        return Configuration.parse(self.sources[place].config_id)


def read_matrix(
    folders: Sequence[Path], precisions: Sequence[str], problem_ids: Sequence[str]
) -> Matrix:
    """Read every answer of the run folders.

    Args:
        folders: Runs over the same prompts, finished or not.
        precisions: Those that have records.
        problem_ids: As `summarise` found them.

    Returns:
        The matrix; answers that are not there are None.

    Raises:
        RecordError: a file is damaged or does not belong to the run.
    """
    tables = [open_answers(folders, name, problem_ids) for name in precisions]
    sources = _union([table.sources for table in tables])
    cells = [_cells(table, sources) for table in tables]
    texts = {
        row["problem_id"]: (row["question"], row["expected"])
        for folder in reversed(folders)
        for row in read_problems(folder).select(["problem_id", "question", "expected"]).to_pylist()
    }
    problems = tuple(
        ProblemAnswers(problem_id, *texts[problem_id], slots=[rows[number] for rows in cells])
        for number, problem_id in enumerate(problem_ids)
    )
    return Matrix(tuple(precisions), sources, problems)


def read_pieces(folders: Sequence[Path]) -> dict[int, str]:
    """Read the text of each token id; bytes that are no whole character become U+DC80 to U+DCFF.

    Raises:
        RecordError: a vocabulary is missing or damaged.
    """
    return {
        token: piece.decode("utf-8", "surrogateescape")
        for folder in folders
        for token, piece in read_vocabulary(folder).items()
    }


def _cells(table: AnswerTables, sources: Sequence[Source]) -> list[list[Answer | None]]:
    """Answers of one precision, problems x `sources`."""
    table = table.load(*_COLUMNS)
    token_ids, digests = table.lists("token_ids"), table.lists("logprob_digests")
    top_ids, top_logprobs = table.lists("top_ids"), table.lists("top_logprobs")
    top_k, correct = table.numbers("top_k", "correct")
    extracted = table.texts("answer")
    columns = {source: column for column, source in enumerate(table.sources)}

    def cell(row: int, source: Source) -> Answer | None:
        column = columns.get(source)
        if column is None or (ids := token_ids[row][column]) is None:
            return None
        shape = (len(ids), int(top_k[row, column]))
        return Answer(
            token_ids=ids,
            top_ids=np.asarray(top_ids[row][column]).reshape(shape),
            top_logprobs=np.asarray(top_logprobs[row][column]).reshape(shape),
            digests=np.asarray(digests[row][column]),
            correct=bool(correct[row, column]),
            extracted=extracted[row][column] or "",
        )

    return [[cell(row, source) for source in sources] for row in range(len(table.problem_ids))]


def _union(lists: Sequence[Sequence[Source]]) -> tuple[Source, ...]:
    """All sources, the longest list's order first."""
    ordered = sorted(lists, key=len, reverse=True)
    return tuple(dict.fromkeys(source for sources in ordered for source in sources))
