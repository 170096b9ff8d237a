"""Greedy generation of a batch with log-probabilities, for LayerCast and stock models alike."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from layercast import ops
from layercast.errors import ShapeError, ValueRangeError
from layercast.integrations.transformers.guard import LayerCastModel

# Logits are kept until so many bytes have come together: one call for many small rows.
_BUFFER_BYTES = 4 << 20


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
) -> list[Generation]:
    """Decode a batch greedily through `model.generate`, prompts padded on the left.

    Log-probabilities are those of the raw logits: by `layercast.ops.log_softmax`
    for a LayerCast model, by `torch.log_softmax` of the float32 logits for any
    other. The checkpoint's generation_config.json is not used.

    Args:
        model: A causal language model on the CPU, in evaluation mode.
        prompts: Token ids, none of them empty.
        max_new_tokens: Longest answer, at least 1.
        top_k: Candidates recorded a token, 1 .. vocabulary.
        eos_token_ids: Tokens that end an answer; none: every answer has `max_new_tokens`.
        pad_token_id: Fills rows up; masked, so its value changes nothing.
        on_step: Called after each step with the number of steps done, which is the
            length of the answers not yet finished.

    Returns:
        One answer for each prompt, in order.

    Raises:
        ValueRangeError: An argument out of range.
        ShapeError: An empty prompt.
    """
    vocabulary = int(model.config.vocab_size)
    _check(prompts, max_new_tokens, top_k, vocabulary, pad_token_id)
    if not prompts:
        return []
    width = max(len(prompt) for prompt in prompts)
    input_ids = torch.full((len(prompts), width), pad_token_id, dtype=torch.int64)
    mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt, dtype=torch.int64)
        mask[row, width - len(prompt) :] = 1
    recorder = _Recorder(
        batch=len(prompts),
        prompt_width=width,
        steps=max_new_tokens,
        top_k=top_k,
        eos_token_ids=frozenset(eos_token_ids),
        log_softmax=ops.log_softmax if isinstance(model, LayerCastModel) else _stock_log_softmax,
        on_step=on_step,
    )
    with torch.inference_mode(), _neutral_generation_config(model):
        sequences = model.generate(
            input_ids,
            attention_mask=mask,
            logits_processor=LogitsProcessorList([recorder]),
            generation_config=GenerationConfig(
                do_sample=False,
                num_beams=1,
                max_new_tokens=max_new_tokens,
                eos_token_id=list(eos_token_ids) or None,
                pad_token_id=pad_token_id,
                use_cache=True,
            ),
        )
    return recorder.finish(sequences, prompts)


class _Recorder(LogitsProcessor):  # type: ignore[misc]
    """Changes no score; keeps what `Generation` needs of each step's logits."""

    def __init__(
        self,
        *,
        batch: int,
        prompt_width: int,
        steps: int,
        top_k: int,
        eos_token_ids: frozenset[int],
        log_softmax: Callable[[Tensor], Tensor],
        on_step: Callable[[int], None] | None,
    ) -> None:
        self._width = prompt_width
        self._top_k = top_k
        self._eos = np.array(sorted(eos_token_ids), dtype=np.int64)
        self._log_softmax = log_softmax
        self._on_step = on_step
        self._steps = 0  # seen
        self._kept: list[Tensor] = []  # logits of the last steps, not yet worked up
        self._kept_bytes = 0
        self._lengths = np.zeros(batch, dtype=np.int64)
        self._stopped = np.zeros(batch, dtype=bool)
        self._logprobs = np.empty((batch, steps), dtype=np.float32)
        self._top_ids = np.empty((batch, steps, top_k), dtype=np.int32)
        self._top_logprobs = np.empty((batch, steps, top_k), dtype=np.float32)
        self._digests = np.zeros((batch, steps), dtype=np.uint64)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._kept_bytes >= _BUFFER_BYTES:
            self._work_up(input_ids)
        self._kept.append(scores)  # generate hands out a fresh float32 copy each step
        self._kept_bytes += scores.nbytes
        self._steps += 1
        if self._on_step is not None:
            self._on_step(self._steps)
        return scores

    def finish(self, sequences: Tensor, prompts: Sequence[Sequence[int]]) -> list[Generation]:
        """The answers, after `model.generate` returned `sequences`."""
        self._work_up(sequences)
        tokens = sequences[:, self._width :].numpy()
        answers = []
        for row, prompt in enumerate(prompts):
            length = int(self._lengths[row])
            answers.append(
                Generation(
                    prompt_ids=tuple(int(token) for token in prompt),
                    token_ids=tuple(tokens[row, :length].tolist()),
                    logprobs=self._logprobs[row, :length].copy(),
                    top_ids=self._top_ids[row, :length].copy(),
                    top_logprobs=self._top_logprobs[row, :length].copy(),
                    digests=self._digests[row, :length].copy(),
                    finish_reason="stop" if self._stopped[row] else "length",
                )
            )
        return answers

    def _work_up(self, input_ids: Tensor) -> None:
        """Turn the kept logits into records; `input_ids` holds the tokens chosen from them."""
        if not self._kept:
            return
        count = len(self._kept)
        first = self._steps - count
        chosen = input_ids[:, self._width + first : self._width + self._steps].numpy()
        rows, steps = np.nonzero(self._unfinished(chosen))
        logits = torch.stack(self._kept, dim=1)[torch.from_numpy(rows), torch.from_numpy(steps)]
        self._kept, self._kept_bytes = [], 0
        logprobs = self._log_softmax(logits)
        top_ids = _top_k(logits, self._top_k)
        at = (rows, steps + first)
        picked = torch.from_numpy(chosen[rows, steps])[:, None]
        self._logprobs[at] = logprobs.gather(1, picked)[:, 0].numpy()
        self._top_ids[at] = top_ids.numpy()
        self._top_logprobs[at] = logprobs.gather(1, top_ids).numpy()
        self._digests[at] = _digests(logprobs)

    def _unfinished(self, chosen: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which (row, step) belong to an answer; updates lengths and stops."""
        ends = np.isin(chosen, self._eos)
        ended_before = np.cumsum(ends, axis=1) - ends > 0
        live = ~self._stopped[:, None] & ~ended_before
        self._lengths += live.sum(axis=1)
        self._stopped |= ends.any(axis=1)
        return live


def _top_k(logits: Tensor, k: int) -> Tensor:
    """Indices of the k largest of each row, ties by the lower index.

    torch.topk breaks ties as it likes, so rows in which one could matter, an equal
    pair among the k + 1 largest, are sorted stably instead.
    """
    wider = min(k + 1, logits.shape[1])
    values, indices = torch.topk(logits, wider, dim=1)
    indices = indices[:, :k].contiguous()
    tied = ~(values[:, :-1] > values[:, 1:]).all(dim=1)  # a NaN counts as a tie
    if bool(tied.any()):
        indices[tied] = torch.sort(logits[tied], dim=1, descending=True, stable=True).indices[:, :k]
    return indices


def _digests(logprobs: Tensor) -> NDArray[np.uint64]:
    rows = np.ascontiguousarray(logprobs.numpy())
    digests = b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in rows)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


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
