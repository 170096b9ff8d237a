"""Generation of a batch with log-probabilities, for LayerCast and stock models alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel
from transformers.generation import StoppingCriteriaList

from layercast import ops
from layercast.errors import ShapeError, ValueRangeError
from layercast.integrations.transformers.guard import LayerCastModel
from layercast.integrations.transformers.own_tokens import OwnTokens
from layercast.integrations.transformers.recorder import StepRecorder
from layercast.integrations.transformers.sampling import (
    PhiloxDraw,
    Sampling,
    Unmark,
    checked_seed,
)
from layercast.modules.cache_name import cache_name


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        prompt_ids: The prompt, without padding.
        token_ids: The answer, T tokens, the end-of-sequence token included when produced.
        logprobs: Float32, shape (T,): log-probability of each token of the answer.
        top_ids: int32, shape (T, top_k): the likeliest tokens, by logit, ties by the lower index.
        top_logprobs: Float32, shape (T, top_k): their log-probabilities.
        digests: uint64, shape (T,): BLAKE2b-64 of the bytes of the whole float32 row of
            log-probabilities, read as a little-endian number.
        finish_reason: "stop" for an end-of-sequence token, "length" for `max_new_tokens`.
    """

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: NDArray[np.float32]
    top_ids: NDArray[np.int32]
    top_logprobs: NDArray[np.float32]
    digests: NDArray[np.uint64]
    finish_reason: Literal["stop", "length"]


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    top_k: int = 5,
    eos_token_ids: Sequence[int] = (),
    pad_token_id: int = 0,
    on_step: Callable[[int], None] | None = None,
    sampling: Sampling | None = None,
    sample_indices: Sequence[int] | None = None,
    prefill_chunk: int | None = None,
    cache: Any = None,
) -> list[Generation]:
    """Decode a batch through `model.generate`, prompts padded on the left.

    Tokens are the likeliest ones, or drawn as `layercast.ops.sample` defines it:
    from a stock model's logits by the same random numbers, so that answers that
    differ do so for their logits' sake. Log-probabilities are those of the raw
    logits: by `layercast.ops.log_softmax` for a LayerCast model, by
    `torch.log_softmax` of the float32 logits for any other. The checkpoint's
    generation_config.json is not used.

    Args:
        model: A causal language model, in evaluation mode; prompts go to its device.
        prompts: Token ids, none of them empty.
        max_new_tokens: Longest answer, at least 1.
        top_k: Candidates recorded a token, 1 .. vocabulary.
        eos_token_ids: Tokens that end an answer; none: every answer has `max_new_tokens`.
        pad_token_id: Fills rows up; masked, so its value changes nothing.
        on_step: Called after each step with the tokens generated so far, over the batch.
        sampling: How to draw; None decodes greedily.
        sample_indices: Which sample of its prompt each answer is, for as many prompts; 0 when left
            out. Rows of the same prompt and index get the same answer.
        prefill_chunk: Columns of the padded prompts computed at a time; None computes all at once.
        cache: Holds the first columns of the padded prompts already.

    Returns:
        One answer for each prompt, in order.

    Raises:
        ValueRangeError: An argument out of range.
        ShapeError: An empty prompt, or another number of sample indices.
    """
    vocabulary = int(model.config.vocab_size)
    _check(prompts, max_new_tokens, top_k, vocabulary, pad_token_id)
    if not prompts:
        return []
    input_ids, mask = (rows.to(model.device) for rows in _padded(prompts, pad_token_id))
    recorder = StepRecorder(
        batch=len(prompts),
        prompt_width=input_ids.shape[1],
        steps=max_new_tokens,
        top_k=top_k,
        eos_token_ids=frozenset(eos_token_ids),
        log_softmax=ops.log_softmax if isinstance(model, LayerCastModel) else _stock_log_softmax,
        on_step=on_step,
    )
    processors, criteria = LogitsProcessorList([recorder]), StoppingCriteriaList()
    if sampling is not None:
        draw = _draw(prompts, sampling, sample_indices, OwnTokens(input_ids, mask))
        processors.append(draw)
        criteria.append(Unmark(draw))
    with torch.inference_mode(), _neutral_generation_config(model):
        sequences = model.generate(
            input_ids,
            attention_mask=mask,
            logits_processor=processors,
            stopping_criteria=criteria,
            generation_config=GenerationConfig(
                do_sample=False,
                prefill_chunk_size=prefill_chunk,
                num_beams=1,
                max_new_tokens=max_new_tokens,
                eos_token_id=list(eos_token_ids) or None,
                pad_token_id=pad_token_id,
                use_cache=True,
            ),
            **{cache_name(model.forward): cache},
        )
    return [
        Generation(
            prompt_ids=tuple(int(token) for token in prompt),
            token_ids=recording.token_ids,
            logprobs=recording.logprobs,
            top_ids=recording.top_ids,
            top_logprobs=recording.top_logprobs,
            digests=recording.digests,
            finish_reason="stop" if recording.stopped else "length",
        )
        for prompt, recording in zip(prompts, recorder.finish(sequences), strict=True)
    ]


def end_of_sequence_ids(model: PreTrainedModel, tokenizer: Any = None) -> tuple[int, ...]:
    """Tokens that end an answer, as the checkpoint declares them.

    Args:
        model: Its generation_config.json is asked first.
        tokenizer: Asked next.

    Returns:
        Token ids, ascending; empty if neither declares one.
    """
    declared = model.generation_config.eos_token_id
    if declared is None and tokenizer is not None:
        declared = tokenizer.eos_token_id
    if declared is None:
        return ()
    return (declared,) if isinstance(declared, int) else tuple(sorted(declared))


def padding_id(model: PreTrainedModel, tokenizer: Any = None) -> int:
    """The token to fill rows up with, as the checkpoint declares it.

    Args:
        model: Its generation_config.json is asked first.
        tokenizer: Asked next.

    Returns:
        A token id: an end-of-sequence token, or 0, if neither declares one. It is masked, so that
        any other would do.
    """
    declared = model.generation_config.pad_token_id
    if declared is None and tokenizer is not None:
        declared = tokenizer.pad_token_id
    return int(declared) if declared is not None else (*end_of_sequence_ids(model, tokenizer), 0)[0]


def _padded(prompts: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    width = max(len(prompt) for prompt in prompts)
    input_ids = torch.full((len(prompts), width), pad_token_id, dtype=torch.int64)
    mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt, dtype=torch.int64)
        mask[row, width - len(prompt) :] = 1
    return input_ids, mask


def _draw(
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    indices: Sequence[int] | None,
    own: OwnTokens,
) -> PhiloxDraw:
    checked_seed(sampling.seed)
    if indices is None:
        indices = [0] * len(prompts)
    if len(indices) != len(prompts):
        raise ShapeError(
            f"generate: `sample_indices` must hold one index for each of the {len(prompts)} "
            f"prompts, got {len(indices)}. Leave it out for 0."
        )
    pairs = zip(prompts, indices, strict=True)
    keys = torch.tensor([ops.sequence_key(prompt, index) for prompt, index in pairs])
    return PhiloxDraw(sampling, keys, own, warp=False)


def _stock_log_softmax(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits, dim=-1)


@contextmanager
def _neutral_generation_config(model: PreTrainedModel) -> Iterator[None]:
    """Keep penalties and bans of the checkpoint's generation_config.json out of greedy decoding."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _check(
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    top_k: int,
    vocabulary: int,
    pad_token_id: int,
) -> None:
    if max_new_tokens < 1:
        raise ValueRangeError(
            f"generate: `max_new_tokens` must be at least 1, got {max_new_tokens}. Raise it."
        )
    if not 1 <= top_k <= vocabulary:
        raise ValueRangeError(
            f"generate: `top_k` must lie in 1 .. {vocabulary}, got {top_k}. The default is 5."
        )
    if not 0 <= pad_token_id < vocabulary:
        raise ValueRangeError(
            f"generate: `pad_token_id` must lie in 0 .. {vocabulary - 1}, got {pad_token_id}. Any "
            "token id will do."
        )
    for row, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise ShapeError(
                f"generate: `prompts` must not be empty, got no tokens for row {row}. Give it at "
                "least one."
            )
        low, high = min(prompt), max(prompt)
        if low < 0 or high >= vocabulary:
            raise ValueRangeError(
                f"generate: `prompts` must hold token ids in 0 .. {vocabulary - 1}, got "
                f"{low if low < 0 else high} in row {row}. Use the tokenizer of this checkpoint."
            )
