"""`generate_batch`: transformers' continuous batching, held to the contract.

Its scheduler, cache and queues are used as they are: which sequences share a step, in what
chunks a prompt is computed, which blocks are shared or evicted cannot change a bit. Attention
over the packed batch, the choice of tokens and their log-probabilities are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager
from transformers.generation.continuous_batching.model_runner import ModelRunner
from transformers.generation.continuous_batching.scheduler import Scheduler

from layercast import ops
from layercast.errors import (
    BackendError,
    LayercastError,
    ShapeError,
    UnsupportedError,
    ValueRangeError,
)
from layercast.integrations.transformers.config import cache_dtype_of
from layercast.integrations.transformers.paging import packed_batch
from layercast.integrations.transformers.token_choice import TokenChooser

_REFUSED = {
    "varlen_compile_config": "Compiled, operations would be fused and round differently",
    "decode_compile_config": "Compiled, operations would be fused and round differently",
    "default_compile_level": "Compiled, operations would be fused and round differently",
    "per_request_processors": "Sampling is that of the generation config for all requests",
    "use_cuda_graph": "Tokens are chosen from what only the scheduler knows",
    "q_padding_interval_size": "Steps are not padded, which only CUDA graphs would need",
    "kv_padding_interval_size": "Steps are not padded, which only CUDA graphs would need",
    "use_async_batching": "A token is chosen by those before it, which must be known by then",
}


class BatchingManager(ContinuousBatchingManager):  # type: ignore[misc]
    """The manager of transformers, over a layercast model."""

    model: Any

    def __init__(
        self, model: Any, generation_config: Any, continuous_batching_config: Any, **kwargs: Any
    ) -> None:
        """Prepare to take requests.

        Args:
            model: A layercast model.
            generation_config: With all its defaults.
            continuous_batching_config: See transformers.
            **kwargs: See transformers.

        Raises:
            UnsupportedError: An option outside the contract.
        """
        for name, reason in _REFUSED.items():
            value = getattr(continuous_batching_config, name, None)
            if any(value) if isinstance(value, tuple) else value:
                raise UnsupportedError(
                    f"generate_batch: `{name}` must be left out on a layercast model. {reason}."
                )
        self.failure: Exception | None = None
        self._chooser = TokenChooser(model, generation_config, continuous_batching_config)
        ends = generation_config.eos_token_id
        # transformers' own processors and draws are not used: it gets a configuration without any.
        plain = GenerationConfig(
            do_sample=False,
            max_new_tokens=generation_config.max_new_tokens,
            eos_token_id=-1 if ends is None else ends,
        )
        plain.num_return_sequences = generation_config.num_return_sequences
        super().__init__(model, plain, continuous_batching_config, **kwargs)

    def switch_to_cb_friendly_attn(self, *_: Any, **__: Any) -> None:
        """Nothing to switch: our attention is passed the packed batch."""

    def add_request(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers.

        Raises:
            UnsupportedError: Sampling options of one request.
        """
        known = {
            "input_ids", "request_id", "max_new_tokens", "streaming", "record_timestamps",
            "eos_token_id",
        }  # fmt: skip
        others = sorted(set(kwargs) - known)
        if others:
            raise UnsupportedError(
                f"add_request: `{others[0]}` must be left out on a layercast model. Set it in the "
                "generation config, for all requests."
            )
        return super().add_request(*args, **kwargs)

    def stop(self, *args: Any, keep_for_next_session: bool = False, **kwargs: Any) -> None:
        """As in transformers.

        Raises:
            UnsupportedError: The manager is to be kept: it would keep its generation config too.
        """
        super().stop(*args, **kwargs)
        if keep_for_next_session:
            raise UnsupportedError(
                "generate_batch: `persistent_manager` must be False on a layercast model: the next "
                "call would be answered by this one's generation config. Use "
                "continuous_batching_context_manager for several calls."
            )

    def _create_batch_processor(self) -> Any:
        model = self.model
        # transformers keeps keys and values in what it takes for the model's dtype.
        self.model = StoringIn(model, cache_dtype_of(model.config))
        try:
            processor = super()._create_batch_processor()
        finally:
            self.model = model
        runner, scheduler = processor.model_runner, processor.scheduler
        runner.__class__ = Runner
        runner.chooser = self._chooser
        if not isinstance(scheduler, SamplesApart):
            kind = type(scheduler)
            scheduler.__class__ = type(kind.__name__, (SamplesApart, kind), {})
        return processor

    def _handle_critical_error(self, error: Exception, batch_processor: Any) -> None:
        self.failure = error
        super()._handle_critical_error(error, batch_processor)


class StoringIn:
    """A model as the paged cache is made for it: its dtype is that of keys and values."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        """See through to `model`, but for its dtype."""
        self._model = model
        self.dtype = dtype

    def __getattr__(self, name: str) -> Any:
        """The model's own."""
        return getattr(self._model, name)


class SamplesApart(Scheduler):  # type: ignore[misc]
    """Mixed into a scheduler of transformers: never forks a prompt with one token left to compute.

    Samples of a prompt share its computation but for the last token, which must
    then be left to each. Where it is the only one, transformers would compute
    an empty step; the samples become requests of their own instead.
    """

    def _schedule_request(self, state: Any, request_tokens: list[int], *args: Any) -> None:
        if state.num_children and len(request_tokens) < 2:
            number, state.num_children = state.num_children, 0
            for index in range(number):
                child = state.create_equivalent_initial_request()
                child.request_id = f"{state.request_id}__child#{index}"
                self.add_waiting_request(child)
        super()._schedule_request(state, request_tokens, *args)


class Runner(ModelRunner):  # type: ignore[misc]
    """Runs a step: our attention over the packed batch, our choice of tokens."""

    chooser: TokenChooser

    def _forward_process_and_sample(
        self,
        model: Any,
        batch_data: dict[str, Any],
        carry_over_ids: Tensor,
        prev_output_ids: Tensor,
        output_ids: Tensor,
    ) -> None:
        inputs_and_outputs = self.inputs_and_outputs
        inputs_and_outputs.carry_over_tokens(
            batch_data["input_ids"], carry_over_ids, prev_output_ids
        )
        requests = inputs_and_outputs.requests_in_batch
        chosen_for = [request.state for request in requests if request.has_new_token]
        rows = batch_data["logits_indices"][: max(1, len(chosen_for))].long()
        keeps = {"logits_to_keep": rows} if self.supports_logits_to_keep(model) else {}
        # A request's offset is already behind the tokens of this step.
        batch = packed_batch(
            batch_data, [(each.query_length, each.state.position_offset) for each in requests]
        )
        logits = model(
            input_ids=batch_data["input_ids"].long(),
            position_ids=batch_data["position_ids"].long(),
            attention_mask=batch.mask(),
            use_cache=False,
            **keeps,
        ).logits[0]
        logits = logits if keeps else logits[rows]
        batch.check()
        if not chosen_for:
            return
        tokens = self.chooser.choose(chosen_for, logits)
        output_ids[0, : len(tokens)].copy_(tokens)
        if self.return_logprobs:
            logprobs = ops.log_softmax(logits).gather(1, tokens[:, None])[:, 0]
            output_ids[1, : len(tokens)].copy_(logprobs.view(torch.int32))


def check_prompts(prompts: Sequence[Sequence[int]], vocabulary: int) -> None:
    """Refuse what would fail in the background.

    Args:
        prompts: Token ids of each request.
        vocabulary: Of the model.

    Raises:
        ShapeError: An empty prompt.
        ValueRangeError: A token id out of range.
    """
    for row, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise ShapeError(
                f"generate_batch: `inputs` must hold prompts of at least one token, got none for "
                f"prompt {row}. Give it one."
            )
        if min(prompt) < 0 or max(prompt) >= vocabulary:
            raise ValueRangeError(
                f"generate_batch: `inputs` must hold token ids in 0 .. {vocabulary - 1}, got "
                f"others in prompt {row}. Use the tokenizer of this checkpoint, and no padding."
            )


def check_answers(
    results: dict[str, Any], prompts: int, samples: int, failure: Exception | None
) -> None:
    """Raise what transformers only logs: requests that failed, or were never answered.

    Args:
        results: What `generate_batch` of transformers returned.
        prompts: How many there were.
        samples: Answers to each.
        failure: What ended its background thread, if anything did.

    Raises:
        LayercastError: What the background thread raised, if it is ours.
        UnsupportedError: A release of transformers that drops all samples but one.
        BackendError: An answer is missing or failed for another reason.
    """
    expected = prompts * samples
    errors = [result.error for result in results.values() if result.error is not None]
    empty = [result for result in results.values() if not result.generated_tokens]
    if failure is None and not errors and not empty and len(results) == expected:
        return
    if isinstance(failure, LayercastError):
        raise failure
    if failure is None and not errors and not empty and len(results) * samples == expected:
        raise UnsupportedError(
            f"generate_batch: `num_return_sequences` must be 1, got {samples}: this release of "
            "transformers hands over one answer a prompt. Update transformers, or use generate."
        )
    reason = failure or (errors[0] if errors else "no reason given")
    answered = len(results) - len(empty)
    raise BackendError(
        f"generate_batch: every request must be answered, got {answered} answers to {expected} "
        f"requests ({type(reason).__name__ if isinstance(reason, Exception) else 'error'}: "
        f"{reason}). If it ran out of room, raise num_blocks or max_memory_percent of the "
        "ContinuousBatchingConfig; psutil must be installed to size it on a CPU."
    ) from failure
