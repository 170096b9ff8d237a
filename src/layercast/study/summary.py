"""What the records of a study say: every metric of every precision, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layercast.errors import RecordError
from layercast.study import metrics, records
from layercast.study.answers import AnswerTables, Source, open_answers, run_names
from layercast.study.bootstrap import Bootstrap, Estimate
from layercast.study.manifest import Manifest, read_manifest
from layercast.study.resolution import Configuration


@dataclass(frozen=True)
class ConfigurationSummary:
    """One configuration of one run, over its problems.

    `accuracy` is in percent, `mean_output_length` in tokens, `seconds` is the time in the engine.
    """

    label: str
    run: str
    configuration: Configuration
    answers: int
    accuracy: float
    mean_output_length: float
    seconds: float


@dataclass(frozen=True)
class ProblemSummary:
    """One problem over the configurations.

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

    Accuracies and shares are in percent, lengths and indices in tokens, `margin` (the mean over
    diverging problems) in nats. `bits_equal` is None if no two answers could be compared.
    `positions_compared` counts shared positions over problems, `logprobs_compared` the
    log-probabilities in their rows, each held against every configuration; None where the engine
    did not tell its vocabulary's size.
    """

    precision: str
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

    An unfinished run is summarised as far as it went, and a note says so.

    Args:
        run_folders: As given to `run_study`.

    Raises:
        RecordError: a folder is no run, or holds no records, or the runs' prompts differ: what
            is not numerics is not measured as if it were.
    """
    folders = tuple(Path(folder) for folder in run_folders)
    manifests = tuple(read_manifest(folder) for folder in folders)
    problem_ids = _shared_problems(folders)
    names = _precisions(folders, manifests)
    seed = manifests[0].resolved["plan"]["seed"]
    bootstrap = Bootstrap(len(problem_ids), seed=seed)
    vocabulary = dict(zip(run_names(folders), map(_vocabulary_size, manifests), strict=True))
    summaries = tuple(
        _summarise_precision(open_answers(folders, name, problem_ids), bootstrap, vocabulary)
        for name in names
    )
    return StudySummary(
        folders=folders,
        manifests=manifests,
        problem_ids=problem_ids,
        precisions=summaries,
        notes=tuple(_notes(folders, manifests, summaries)),
    )


def _summarise_precision(
    answers: AnswerTables, bootstrap: Bootstrap, vocabulary: dict[str, int | None]
) -> PrecisionSummary:
    _require_one_prompt(answers)
    correct, lengths, seconds, sizes = answers.numbers(
        "correct", "output_length", "batch_seconds", "batch_size"
    )
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
    length_stds = _nan_array([metrics.sample_std(_present(row)) for row in lengths])
    comparable = (~np.isnan(correct)).sum(axis=1) > 1
    diverging = np.where(comparable, _nan_array([index is not None for index in indices]), np.nan)
    bits = np.where(comparable, _nan_array([first is not None for first in firsts]), np.nan)
    vocabularies = {vocabulary[source.run] for source in answers.sources}
    size = vocabularies.pop() if len(vocabularies) == 1 else None
    div_index = bootstrap.mean(_nan_array(indices))
    return PrecisionSummary(
        precision=answers.precision,
        configurations=tuple(
            _summarise_configuration(
                source, correct[:, c], lengths[:, c], seconds[:, c] / sizes[:, c]
            )
            for c, source in enumerate(answers.sources)
        ),
        problems=tuple(
            ProblemSummary(
                problem_id=problem_id,
                answers=int((~np.isnan(correct[p])).sum()),
                distinct_responses=distinct[p],
                divergence_index=indices[p],
                first_bit_divergence=firsts[p],
                margin=margins[p],
                output_length_std=float(length_stds[p]),
                accuracy=100.0 * _mean(correct[p]),
            )
            for p, problem_id in enumerate(answers.problem_ids)
        ),
        answers_missing=int(np.isnan(correct).sum()),
        accuracy=bootstrap.mean_over_configurations(correct, scale=100.0),
        std_at_acc=bootstrap.std_over_configurations(correct, scale=100.0),
        avg_std_output_length=bootstrap.mean(length_stds),
        div_index=_or_none_diverge(div_index, comparable.any()),
        div_percent=bootstrap.mean(diverging, scale=100.0),
        avg_std_top1_prob=bootstrap.mean(_nan_array(top1_stds)),
        bit_div_percent=bootstrap.mean(bits, scale=100.0),
        margin=bootstrap.mean(_nan_array(margins)),
        bits_equal=_bits_equal(diverging, bits),
        positions_compared=positions,
        logprobs_compared=None if size is None else positions * size,
    )


def _summarise_configuration(
    source: Source,
    correct: NDArray[np.float64],
    lengths: NDArray[np.float64],
    seconds: NDArray[np.float64],
) -> ConfigurationSummary:
    return ConfigurationSummary(
        label=source.label,
        run=source.run,
        configuration=Configuration.parse(source.config_id),
        answers=int((~np.isnan(correct)).sum()),
        accuracy=100.0 * _mean(correct),
        mean_output_length=_mean(lengths),
        seconds=float(np.nansum(seconds)),
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


def _bits_equal(diverging: NDArray[np.float64], bits: NDArray[np.float64]) -> bool | None:
    judged = ~np.isnan(bits)
    if not judged.any():
        return None
    return not (bits[judged].any() or diverging[judged].any())


def _or_none_diverge(estimate: Estimate, comparable: bool) -> Estimate:
    """Return the paper's -1 where responses were compared and none diverged."""
    if comparable and math.isnan(estimate.value):
        value = metrics.NO_DIVERGENCE
        return Estimate(value, value, value)
    return estimate


def _shared_problems(folders: Sequence[Path]) -> tuple[str, ...]:
    """Return the problems of all runs, which must have been asked in the same words."""
    asked: dict[str, tuple[str, Path]] = {}
    for folder in folders:
        table = records.read_problems(folder)
        for problem_id, digest in zip(
            table["problem_id"].to_pylist(), table["prompt_digest"].to_pylist(), strict=True
        ):
            known, where = asked.setdefault(problem_id, (digest, folder))
            if known != digest:
                raise RecordError(
                    f"summarise: `run_folders` must have asked the same prompts, got another one "
                    f"for {problem_id} in {folder} than in {where}. This is not numerics: compare "
                    "runs with the same problems, chat template and tokenizer."
                )
    return tuple(asked)


def _require_one_prompt(answers: AnswerTables) -> None:
    for problem_id, row in zip(answers.problem_ids, answers.texts("prompt_digest"), strict=True):
        if len({digest for digest in row if digest is not None}) > 1:
            raise RecordError(
                f"summarise: `records` must hold answers to one prompt a problem, got two prompts "
                f"for {problem_id} under {answers.precision}. This is not numerics: run the study "
                "into a new folder."
            )


def _precisions(folders: Sequence[Path], manifests: Sequence[Manifest]) -> list[str]:
    """Return the precisions that have records, in the plans' order."""
    planned = [name for manifest in manifests for name in manifest.resolved["plan"]["precisions"]]
    there = {name for folder in folders for name in records.precisions(folder)}
    names = [name for name in dict.fromkeys(planned) if name in there]
    if not names:
        raise RecordError(
            f"summarise: `{folders[0]}` must hold records, got none yet. "
            "Run the study into this folder first."
        )
    return names


def _notes(
    folders: Sequence[Path],
    manifests: Sequence[Manifest],
    summaries: Sequence[PrecisionSummary],
) -> list[str]:
    notes = [note for manifest in manifests for note in manifest.resolved["notes"]]
    for folder, manifest in zip(folders, manifests, strict=True):
        if any(manifest.model_files != other.model_files for other in manifests[:1]):
            notes.append(f"Not numerics: {folder} ran on other model files than {folders[0]}.")
        planned = len(manifest.resolved["configurations"])
        for name in manifest.resolved["plan"]["precisions"]:
            done = len(records.config_ids(folder, name))
            if done < planned:
                notes.append(f"Unfinished: {name} has {done} of {planned} configurations.")
    notes += [
        f"Unfinished: {summary.precision} lacks {summary.answers_missing} answers."
        for summary in summaries
        if summary.answers_missing
    ]
    return list(dict.fromkeys(notes))


def _vocabulary_size(manifest: Manifest) -> int | None:
    sizes = {state.facts.get("vocab_size") for state in manifest.workers.values()}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) else None


def _nan_array(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _present(row: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in row[~np.isnan(row)]]


def _mean(values: NDArray[np.float64]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else math.nan
