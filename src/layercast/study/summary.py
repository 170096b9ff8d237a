"""What the records of a study say: every metric of every precision, with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layercast.errors import RecordError
from layercast.study import metrics, records
from layercast.study.answers import AnswerTables, Source, open_answers, run_names
from layercast.study.bootstrap import Bootstrap, Estimate
from layercast.study.comparability import (
    require_one_prompt,
    require_same_settings,
    shared_problems,
    version_notes,
)
from layercast.study.manifest import Manifest, read_manifest
from layercast.study.resolution import Configuration


@dataclass(frozen=True)
class ConfigurationSummary:
    """One configuration of one run, over its problems.

    `accuracy` is in percent, `mean_output_length` in tokens; both are None where an answer is
    missing, since a mean over other problems compares with nothing.
    """

    label: str
    run: str
    configuration: Configuration
    answers: int
    accuracy: float | None
    mean_output_length: float | None

    @property
    def complete(self) -> bool:
        """Whether every problem was answered."""
        return self.accuracy is not None


@dataclass(frozen=True)
class ProblemSummary:
    """One problem over the configurations that are complete.

    `divergence_index` and `first_bit_divergence` are None where nothing differs; `margin` is in
    nats, None where the responses do not diverge; `accuracy` is in percent of the answers.
    """

    problem_id: str
    answers: int
    distinct_responses: int
    divergence_index: int | None
    first_bit_divergence: int | None
    margin: float | None
    output_length_std: float
    accuracy: float


@dataclass(frozen=True)
class PrecisionSummary:
    """The metrics of one precision; see `layercast.study.metrics` for their definitions.

    Of the configurations planned, `configurations` have answers; those that answered every problem
    are compared, and every figure is over these alone. Accuracies and shares are in percent,
    lengths and indices in tokens, `margin` (the mean over diverging problems) in nats. `bits_equal`
    is None if no two configurations could be compared; it is False also where only an incomplete
    one differs. `positions_compared` counts shared positions over problems, `logprobs_compared` the
    log-probabilities in their rows, each held against every configuration; None where the engine
    did not tell its vocabulary's size.
    """

    precision: str
    planned: int
    configurations: tuple[ConfigurationSummary, ...]
    problems: tuple[ProblemSummary, ...]
    answers_missing: int
    accuracy: Estimate
    std_at_acc: Estimate
    avg_std_output_length: Estimate
    div_index: Estimate
    div_percent: Estimate
    avg_std_top1_prob: Estimate
    bit_div_percent: Estimate
    margin: Estimate
    bits_equal: bool | None
    positions_compared: int
    logprobs_compared: int | None

    @property
    def compared(self) -> int:
        """How many configurations are complete, and so compared."""
        return sum(configuration.complete for configuration in self.configurations)

    @property
    def extent(self) -> str:
        """Which configurations a claim about the compared ones is about, after "in"."""
        if self.compared == self.planned:
            return f"all {self.planned} configurations"
        return f"the {self.compared} configurations compared, of {self.planned} planned"


@dataclass(frozen=True)
class StudySummary:
    """All precisions of one run or several over the same prompts.

    `notes` says in whole sentences what a reader must know before the numbers.
    """

    folders: tuple[Path, ...]
    manifests: tuple[Manifest, ...]
    problem_ids: tuple[str, ...]
    precisions: tuple[PrecisionSummary, ...]
    notes: tuple[str, ...]


def summarise(run_folders: Sequence[Path]) -> StudySummary:
    """Compute every metric from the records of one run, or of several on different machines.

    Of an unfinished run those configurations are compared that answered every problem; notes say
    which are left out.

    Args:
        run_folders: As given to `run_study`.

    Raises:
        RecordError: a folder is no run, or holds no records, or the runs' prompts, settings or
            model differ: what is not numerics is not measured as if it were.
    """
    folders = tuple(Path(folder) for folder in run_folders)
    manifests = tuple(read_manifest(folder) for folder in folders)
    problem_ids = shared_problems(folders)
    require_same_settings(folders, manifests)
    names = _precisions(folders, manifests)
    bootstrap = Bootstrap(len(problem_ids), seed=manifests[0].resolved.plan.seed)
    vocabulary = dict(zip(run_names(folders), map(_vocabulary_size, manifests), strict=True))
    summaries = tuple(
        _summarise_precision(
            open_answers(folders, name, problem_ids),
            bootstrap,
            vocabulary,
            _planned(name, manifests),
        )
        for name in names
    )
    return StudySummary(
        folders=folders,
        manifests=manifests,
        problem_ids=problem_ids,
        precisions=summaries,
        notes=tuple(dict.fromkeys(_notes(folders, manifests, summaries))),
    )


def _summarise_precision(
    started: AnswerTables, bootstrap: Bootstrap, vocabulary: dict[str, int | None], planned: int
) -> PrecisionSummary:
    started = started.load("prompt_digest", "correct", "output_length", "top_k")
    require_one_prompt(started)
    correct, lengths = started.numbers("correct", "output_length")
    configurations = tuple(
        _summarise_configuration(source, correct[:, c], lengths[:, c])
        for c, source in enumerate(started.sources)
    )
    kept = [c for c, configuration in enumerate(configurations) if configuration.complete]
    answers = started.select(kept)
    missing = int(np.isnan(correct).sum())
    correct, lengths = correct[:, kept], lengths[:, kept]
    # One list column is held at a time; each is the largest thing in a record.
    responses = answers.lists("token_ids")
    indices = metrics.divergence_indices(responses)
    distinct = [len({cell.tobytes() for cell in row if cell is not None}) for row in responses]
    del responses
    digests = answers.lists("logprob_digests")
    firsts = [metrics.first_bit_divergence(*pair) for pair in zip(digests, indices, strict=True)]
    positions = sum(
        metrics.compared_positions(*pair) for pair in zip(digests, indices, strict=True)
    )
    del digests
    margins, top1_stds = _top_candidates(answers, indices)
    length_stds = _nan_array([metrics.sample_std(row) for row in lengths])
    comparable = len(kept) > 1
    diverging = _nan_array([index is not None if comparable else None for index in indices])
    bits = _nan_array([first is not None if comparable else None for first in firsts])
    vocabularies = {vocabulary[source.run] for source in answers.sources}
    size = vocabularies.pop() if len(vocabularies) == 1 else None
    return PrecisionSummary(
        precision=answers.precision,
        planned=planned,
        configurations=configurations,
        problems=tuple(
            ProblemSummary(
                problem_id=problem_id,
                answers=len(kept),
                distinct_responses=distinct[p],
                divergence_index=indices[p],
                first_bit_divergence=firsts[p],
                margin=margins[p],
                output_length_std=float(length_stds[p]),
                accuracy=100.0 * float(correct[p].mean()) if kept else math.nan,
            )
            for p, problem_id in enumerate(answers.problem_ids)
        ),
        answers_missing=missing,
        accuracy=bootstrap.mean_over_configurations(correct, scale=100.0),
        std_at_acc=bootstrap.std_over_configurations(correct, scale=100.0),
        avg_std_output_length=bootstrap.mean(length_stds),
        div_index=_or_none_diverge(bootstrap.mean(_nan_array(indices)), comparable),
        div_percent=bootstrap.mean(diverging, scale=100.0),
        avg_std_top1_prob=bootstrap.mean(_nan_array(top1_stds)),
        bit_div_percent=bootstrap.mean(bits, scale=100.0),
        margin=bootstrap.mean(_nan_array(margins)),
        bits_equal=_bits_equal(
            started,
            differs=bool(((bits == 1) | (diverging == 1)).any()),
            complete=not missing,
            comparable=comparable,
        ),
        positions_compared=positions,
        logprobs_compared=None if size is None else positions * size,
    )


def _summarise_configuration(
    source: Source, correct: NDArray[np.float64], lengths: NDArray[np.float64]
) -> ConfigurationSummary:
    complete = not np.isnan(correct).any()
    return ConfigurationSummary(
        label=source.label,
        run=source.run,
        configuration=Configuration.parse(source.config_id),
        answers=int((~np.isnan(correct)).sum()),
        accuracy=100.0 * float(correct.mean()) if complete else None,
        mean_output_length=float(lengths.mean()) if complete else None,
    )


def _top_candidates(
    answers: AnswerTables, indices: Sequence[int | None]
) -> tuple[list[float | None], list[float | None]]:
    """Return each problem's margin at the divergence and spread of the top-1 probability."""
    (top_k,) = answers.numbers("top_k")
    margins: list[float | None] = []
    spreads: list[float | None] = []
    for row, counts, index in zip(answers.lists("top_logprobs"), top_k, indices, strict=True):
        tables = [
            None if cell is None else cell.reshape(-1, int(k))
            for cell, k in zip(row, counts, strict=True)
        ]
        margins.append(metrics.divergence_margin(tables, index))
        best = [None if t is None else np.exp(t[:, 0].astype(np.float64)) for t in tables]
        spreads.append(metrics.std_top1_prob(best, index))
    return margins, spreads


def _bits_equal(
    started: AnswerTables, *, differs: bool, complete: bool, comparable: bool
) -> bool | None:
    """Say whether every bit is equal; a difference counts wherever it was seen."""
    if differs or not (complete or _all_agree(started)):
        return False
    return True if comparable else None


def _all_agree(answers: AnswerTables) -> bool:
    """Say whether the answers that are there agree, those of incomplete configurations too."""
    indices = metrics.divergence_indices(answers.lists("token_ids"))
    if any(index is not None for index in indices):
        return False
    digests = answers.lists("logprob_digests")
    return all(metrics.first_bit_divergence(row, None) is None for row in digests)


def _or_none_diverge(estimate: Estimate, comparable: bool) -> Estimate:
    """Return the paper's -1 where responses were compared and none diverged."""
    if comparable and math.isnan(estimate.value):
        value = metrics.NO_DIVERGENCE
        return Estimate(value, value, value)
    return estimate


def _precisions(folders: Sequence[Path], manifests: Sequence[Manifest]) -> list[str]:
    """Return the precisions that have records, in the plans' order."""
    planned = [name.value for m in manifests for name in m.resolved.plan.precisions]
    there = {name for folder in folders for name in records.precisions(folder)}
    names = [name for name in dict.fromkeys(planned) if name in there]
    if not names:
        raise RecordError(
            f"summarise: `{folders[0]}` must hold records, got none yet. "
            "Run the study into this folder first."
        )
    return names


def _planned(precision: str, manifests: Sequence[Manifest]) -> int:
    """Return how many configurations of a precision the runs' plans have."""
    return sum(
        len(m.resolved.configurations) for m in manifests if precision in m.resolved.plan.precisions
    )


def _notes(
    folders: Sequence[Path],
    manifests: Sequence[Manifest],
    summaries: Sequence[PrecisionSummary],
) -> Iterator[str]:
    for manifest in manifests:
        yield from manifest.resolved.notes
    yield from version_notes(run_names(folders), manifests)
    for folder, run, manifest in zip(folders, run_names(folders), manifests, strict=True):
        planned = len(manifest.resolved.configurations)
        for name in manifest.resolved.plan.precisions:
            done = len(records.config_ids(folder, name))
            if done < planned:
                where = f" in {run}" if run else ""
                yield f"Unfinished: {name} has {done} of {planned} configurations{where}."
    for summary in summaries:
        if summary.answers_missing:
            left = [c.label for c in summary.configurations if not c.complete]
            names = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
            yield (
                f"Unfinished: {summary.precision} lacks {summary.answers_missing} "
                f"answer{'s' * (summary.answers_missing > 1)} of {names}. "
                "Configurations that lack an answer are left out of every figure."
            )


def _vocabulary_size(manifest: Manifest) -> int | None:
    sizes = {state.facts.get("vocab_size") for state in manifest.workers.values()}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) else None


def _nan_array(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
