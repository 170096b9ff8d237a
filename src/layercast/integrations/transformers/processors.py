"""Which of transformers' logits processors keep the guarantee, and how the others fail."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation import StoppingCriteria, StoppingCriteriaList
from transformers.generation.logits_process import (
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    InfNanRemoveLogitsProcessor,
    LogitNormalization,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)
from transformers.generation.stopping_criteria import MaxTimeCriteria, StopStringCriteria

from layercast import ops
from layercast.errors import UnsupportedError, ValueRangeError
from layercast.integrations.transformers.own_tokens import OwnTokens

# Read whole: they compare, select, and add or write infinities.
_EXACT = (
    ForcedEOSTokenLogitsProcessor,
    InfNanRemoveLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)
# These look at tokens or lengths, so that padding would show: they are given a row's own tokens.
_EXACT_OF_OWN_TOKENS = (
    ForcedBOSTokenLogitsProcessor,
    MinLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
)
# What the refused ones are called among the options of `generate`.
_OPTIONS = {
    "ClassifierFreeGuidanceLogitsProcessor": "guidance_scale",
    "EncoderNoRepeatNGramLogitsProcessor": "encoder_no_repeat_ngram_size",
    "EncoderRepetitionPenaltyLogitsProcessor": "encoder_repetition_penalty",
    "EpsilonLogitsWarper": "epsilon_cutoff",
    "EtaLogitsWarper": "eta_cutoff",
    "ExponentialDecayLengthPenalty": "exponential_decay_length_penalty",
    "LogitNormalization": "renormalize_logits",
    "SynthIDTextWatermarkLogitsProcessor": "watermarking_config",
    "TopHLogitsWarper": "top_h",
    "TypicalLogitsWarper": "typical_p",
    "UnbatchedClassifierFreeGuidanceLogitsProcessor": "guidance_scale",
    "WatermarkLogitsProcessor": "watermarking_config",
}


def exact_processors(
    processors: Iterable[LogitsProcessor], own: OwnTokens, *, counts_new_tokens: bool
) -> LogitsProcessorList:
    """Processors by which a row's scores depend on its own tokens and scores alone, exactly.

    A processor of another class is taken if its class declares `layercast_exact =
    True`: its author vouches that it does to each row what it would do to that row
    alone, and that its arithmetic is exact (comparisons, selections, one correctly
    rounded operation a score).

    Args:
        processors: What `generate` of transformers made of its options and was given.
        own: Of the batch.
        counts_new_tokens: Whether `min_length` was made from `min_new_tokens`, and so holds the
            padded width of the prompts.

    Returns:
        As many processors, in the same order.

    Raises:
        UnsupportedError: Names the first that is not covered.
    """
    return LogitsProcessorList(_exact(p, own, counts_new_tokens) for p in processors)


def exact_criteria(
    criteria: Iterable[StoppingCriteria], own: OwnTokens, *, beams: bool
) -> StoppingCriteriaList:
    """Stopping criteria by which a row's end depends on its own tokens alone.

    Criteria of other classes are taken as they are: where an answer ends is up to
    them, its bits are not.

    Args:
        criteria: What `generate` of transformers made of its options and was given.
        own: Of the batch.
        beams: Whether this is a beam search, which ends rows together.

    Returns:
        As many criteria, in the same order.

    Raises:
        UnsupportedError: One looks at the clock, or at more than length and end-of-sequence in a
            beam search.
    """
    taken = StoppingCriteriaList()
    for criterion in criteria:
        name = type(criterion).__name__
        if isinstance(criterion, MaxTimeCriteria):
            raise UnsupportedError(
                "generate: `max_time` must be left out on a layercast model: an answer's length "
                "would depend on the machine's load. Limit it by max_new_tokens."
            )
        if beams and name not in ("MaxLengthCriteria", "EosTokenCriteria"):
            raise UnsupportedError(
                f"generate: `stopping_criteria` must be left out of a beam search, got {name}. "
                "When all beams of a row have ended by it, what follows depends on the other "
                "rows. Use eos_token_id, or num_beams=1."
            )
        if isinstance(criterion, StopStringCriteria) and own.padded:
            criterion = _OwnCriterion(criterion, own)
        taken.append(criterion)
    return taken


def _exact(processor: LogitsProcessor, own: OwnTokens, counts_new_tokens: bool) -> LogitsProcessor:
    kind = type(processor)
    if kind is LogitNormalization:
        return Normalization()
    if kind is RepetitionPenaltyLogitsProcessor:
        ignored = getattr(processor, "prompt_ignore_length", None)
        if not isinstance(ignored, int):
            return RepetitionPenalty(processor.penalty, own)
        raise UnsupportedError(
            "generate: `prompt_ignore_length` of the repetition penalty must be left out on a "
            f"layercast model, got {ignored}: it counts padding. Pass repetition_penalty= instead."
        )
    if kind in (SequenceBiasLogitsProcessor, NoBadWordsLogitsProcessor):
        return SequenceBias(processor.sequence_bias, own)
    if getattr(kind, "layercast_exact", False) or kind in _EXACT:
        return processor
    if kind in _EXACT_OF_OWN_TOKENS:
        if kind is MinLengthLogitsProcessor and counts_new_tokens:
            return processor
        return _OwnProcessor(processor, own) if own.padded else processor
    raise UnsupportedError(
        f"generate: `logits_processor` must hold processors known to be exact on a layercast "
        f"model, got {described(processor)}. Leave it out; a processor of your own that treats "
        "each row by itself and exactly may declare `layercast_exact = True` on its class."
    )


def described(processor: LogitsProcessor) -> str:
    """The name of a processor's class, and of the option of `generate` that makes it."""
    name = type(processor).__name__
    return f"{name} (`{_OPTIONS[name]}`)" if name in _OPTIONS else name


class Normalization(LogitsProcessor):  # type: ignore[misc]
    """`renormalize_logits` by the contract's log_softmax."""

    layercast_exact = True

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Log-softmax of each row."""
        return ops.log_softmax(scores)


class RepetitionPenalty(LogitsProcessor):  # type: ignore[misc]
    """`repetition_penalty` by one multiplication or division of tensors, of a row's own tokens."""

    layercast_exact = True

    def __init__(self, penalty: float, own: OwnTokens) -> None:
        self._penalty = penalty
        self._own = own

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Penalise the tokens each row holds."""
        penalised = scores.clone()
        for row, tokens in enumerate(self._own.rows(input_ids)):
            known = sorted(token for token in set(tokens[0].tolist()) if token < scores.shape[1])
            ids = torch.tensor(known, dtype=torch.int64, device=scores.device)
            chosen = scores[row, ids]
            penalty = torch.full_like(chosen, self._penalty)
            penalised[row, ids] = torch.where(chosen < 0, chosen * penalty, chosen / penalty)
        return penalised


class SequenceBias(LogitsProcessor):  # type: ignore[misc]
    """`sequence_bias` and `bad_words_ids` by one addition a token, after a row's own tokens."""

    layercast_exact = True

    def __init__(self, biases: dict[tuple[int, ...], float], own: OwnTokens) -> None:
        """Sort the biases by the tokens they follow.

        Args:
            biases: Sequence of token ids to what is added to the score of its last token after
                the others.
            own: Of the batch.

        Raises:
            UnsupportedError: Two finite biases of one token: releases of transformers differ in
                the order of adding them.
        """
        self._own = own
        self._last: dict[tuple[int, ...], dict[int, float]] = {}
        for sequence, bias in biases.items():
            self._last.setdefault(sequence[:-1], {})[sequence[-1]] = bias
        ends = [sequence[-1] for sequence, bias in biases.items() if bias != -torch.inf]
        if len(set(ends)) < len(ends):
            raise UnsupportedError(
                "generate: `sequence_bias` must not hold two sequences that end in the same token "
                "on a layercast model: the order of adding their biases is not fixed. Remove one "
                "of them."
            )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Add the biases of the tokens that may follow each row."""
        biased = scores.clone()
        for row, tokens in enumerate(self._own.rows(input_ids)):
            ids = tokens[0].tolist()
            added: dict[int, float] = {}
            for before, last in self._last.items():
                if len(before) <= len(ids) and tuple(ids[len(ids) - len(before) :]) == before:
                    for token, bias in last.items():  # of two, one is -inf
                        added[token] = added.get(token, 0.0) + bias
            if added and max(added) >= scores.shape[1]:
                raise ValueRangeError(
                    f"generate: `sequence_bias` and `bad_words_ids` must hold token ids below "
                    f"{scores.shape[1]}, got {max(added)}. Use this checkpoint's tokenizer."
                )
            at = torch.tensor(list(added), dtype=torch.int64, device=scores.device)
            summands = torch.tensor(list(added.values()), dtype=torch.float32, device=scores.device)
            biased[row, at] = scores[row, at] + summands
        return biased


class _OwnProcessor(LogitsProcessor):  # type: ignore[misc]
    """Applies a processor to each row as if it were alone."""

    layercast_exact = True

    def __init__(self, processor: LogitsProcessor, own: OwnTokens) -> None:
        self._processor = processor
        self._own = own

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = zip(self._own.rows(input_ids), scores[:, None], strict=True)
        return torch.cat([self._processor(tokens, row) for tokens, row in rows])


class _OwnCriterion(StoppingCriteria):  # type: ignore[misc]
    """Asks a criterion about each row as if it were alone."""

    def __init__(self, criterion: StoppingCriteria, own: OwnTokens) -> None:
        self._criterion = criterion
        self._own = own

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        rows = self._own.rows(input_ids)
        return torch.cat([self._criterion(tokens, scores, **kwargs) for tokens in rows])
