"""`generate` of a loaded model: transformers' own loops, held to the contract."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import GenerationMixin, LogitsProcessorList
from transformers.generation import StoppingCriteriaList

from layercast.errors import UnsupportedError, ValueRangeError
from layercast.integrations.transformers.beams import ContractSelection, LengthPenalty
from layercast.integrations.transformers.decoding_checks import batching_config, check_decoding
from layercast.integrations.transformers.own_tokens import OwnTokens
from layercast.integrations.transformers.processors import exact_criteria, exact_processors
from layercast.integrations.transformers.sampling import (
    Draft,
    PhiloxDraw,
    SeedRequest,
    Unmark,
    checked_seed,
    prepare_draw,
)


class LayerCastDecoding:
    """Mixed into the class of a loaded model with a language-model head; see `guard_model`.

    The loops are transformers'. What they compute otherwise than the contract,
    or from padding, is replaced: drawing tokens, log_softmax, top-k of equals,
    the repetition penalty. What cannot be is refused.
    """

    def generate(self, *args: Any, seed: int | None = None, **kwargs: Any) -> Any:
        """As `generate` of transformers, and for sampling `seed`.

        Args:
            *args: See transformers.
            seed: Of the draws, within 0 .. 2**63 - 1; left out, `seed` of the generation config,
                or else 0. The same prompt with the same seed gives the same samples, in any batch;
                `num_return_sequences` gives several. torch's generators are not used.
            **kwargs: See transformers.

        Returns:
            See transformers.

        Raises:
            UnsupportedError: A way of decoding, or an option, outside the contract.
            ValueRangeError: Padding on the right, or a limit that counts padding.
        """
        stock: Any = super()
        arguments = _named(stock.generate, args, kwargs)
        check_decoding(self, **arguments)
        if seed is not None:
            given = arguments.pop("logits_processor", None) or ()
            request = SeedRequest(checked_seed(seed))
            arguments["logits_processor"] = LogitsProcessorList([*given, request])
        return stock.generate(**arguments)

    def generate_batch(
        self,
        inputs: Sequence[Sequence[int]],
        generation_config: Any = None,
        *args: Any,
        seed: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `generate_batch` of transformers: the answers, and bits, of `generate`.

        Options are those of `generate`, defaults included. Log-probabilities
        (`return_logprobs`) are of the logits before any processor.

        Args:
            inputs: Token ids of each prompt, without padding.
            generation_config: See transformers; greedy or sampling.
            *args: See transformers.
            seed: See `generate`; the continuous batching config may have one too.
            **kwargs: See transformers.

        Returns:
            See transformers.

        Raises:
            UnsupportedError: A way of decoding, or an option, outside the contract.
            ValueRangeError: No `max_new_tokens`, or a token id out of range.
            ShapeError: An empty prompt.
            BackendError: A request was not answered.
        """
        from layercast.integrations.transformers import continuous_batching as batching

        model, stock = cast("Any", self), cast("Any", super())
        given = generation_config or model.generation_config
        if kwargs.get("max_new_tokens") is None and given.max_new_tokens is None:
            raise ValueRangeError(
                "generate_batch: `max_new_tokens` must be given, got none. Pass it, or set it in "
                "the generation config."
            )
        batching.check_prompts(inputs, model.config.get_text_config().vocab_size)
        config = batching_config(model, generation_config)
        if seed is not None:
            config.seed = checked_seed(seed)
        try:
            results = stock.generate_batch(inputs, config, *args, **kwargs)
        finally:
            manager = model.__dict__.pop("_batching_manager", None)
        samples = config.num_return_sequences or 1
        failure = None if manager is None else manager.failure
        batching.check_answers(results, len(inputs), samples, failure)
        return results

    def init_continuous_batching(
        self,
        generation_config: Any = None,
        continuous_batching_config: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As in transformers; `generate_batch` says what differs. A manager is never kept."""
        from transformers import ContinuousBatchingConfig

        from layercast.integrations.transformers.continuous_batching import BatchingManager

        model = cast("Any", self)
        manager = BatchingManager(
            model,
            batching_config(model, generation_config),
            continuous_batching_config or ContinuousBatchingConfig(),
            **kwargs,
        )
        model.__dict__["_batching_manager"] = manager
        return manager

    def _sample(
        self,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **kwargs: Any,
    ) -> Any:
        stock: Any = super()
        steps = _steps(input_ids, logits_processor, stopping_criteria, generation_config, kwargs)
        return stock._sample(input_ids, **steps, **kwargs)

    def _beam_search(
        self,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **kwargs: Any,
    ) -> Any:
        stock: Any = super()
        steps = _steps(
            input_ids, logits_processor, stopping_criteria, generation_config, kwargs, beams=True
        )
        config = steps["generation_config"]
        config.length_penalty = LengthPenalty(config.length_penalty)
        with ContractSelection():
            return stock._beam_search(input_ids, **steps, **kwargs)

    def _assisted_decoding(
        self,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        inputs_tensor: Tensor | None = None,  # transformers asks the signature for it
        **kwargs: Any,
    ) -> Any:
        stock: Any = super()
        for_drafts = {"inputs_tensor": inputs_tensor, "tokenizer": kwargs.get("tokenizer")}
        steps = _steps(input_ids, logits_processor, stopping_criteria, generation_config, kwargs)
        result = stock._assisted_decoding(input_ids, **for_drafts, **steps, **kwargs)
        sequences = result if isinstance(result, Tensor) else result.sequences
        if sequences.shape[1] == input_ids.shape[1]:
            raise UnsupportedError(
                "generate: assisted decoding must answer, got no token: older releases of "
                "transformers take a prompt that ends in an end-of-sequence token for an answer. "
                "Update transformers, or leave out the assistant."
            )
        return result

    def _get_candidate_generator(self, **kwargs: Any) -> Any:
        stock: Any = super()
        model_kwargs, ids = kwargs["model_kwargs"], kwargs["input_ids"]
        if model_kwargs.get("attention_mask") is None:
            # Left out, the assistant would take padding tokens among the answer's for padding.
            kwargs["model_kwargs"] = {**model_kwargs, "attention_mask": torch.ones_like(ids)}
        processors = kwargs["logits_processor"]
        draw = processors[-1] if processors and isinstance(processors[-1], PhiloxDraw) else None
        if draw is not None:
            # The draw is not for drafting: its marks would be taken for scores.
            processors = processors[:-1]
            same_tokens = kwargs.get("assistant_tokenizer") is None
            if kwargs.get("assistant_model") is not None and same_tokens:
                processors = [*processors, Draft(draw)]
            kwargs["logits_processor"] = LogitsProcessorList(processors)
        return stock._get_candidate_generator(**kwargs)

    @functools.wraps(GenerationMixin.prepare_inputs_for_generation)  # its signature is asked for
    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; the cache stays where a rope scaling would have switched.

        Phi-3 drops it there, to compute every key with the other frequencies. Here they are
        fixed when the model is loaded.
        """
        stock: Any = super()
        rope = getattr(cast("Any", self).config, "rope_parameters", None) or {}
        if rope.get("rope_type") == "longrope":
            return GenerationMixin.prepare_inputs_for_generation(self, *args, **kwargs)
        return stock.prepare_inputs_for_generation(*args, **kwargs)

    def compute_transition_scores(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, normalised by the contract's log_softmax where asked for."""
        stock: Any = super()
        with ContractSelection():
            return stock.compute_transition_scores(*args, **kwargs)


def _steps(
    input_ids: Tensor,
    processors: Any,
    criteria: Any,
    generation_config: Any,
    model_kwargs: dict[str, Any],
    *,
    beams: bool = False,
) -> dict[str, Any]:
    """The arguments of a loop, with its steps held to the contract."""
    model_kwargs.pop("tokenizer", None)  # for stop strings; else it would travel to the attention
    own = OwnTokens(input_ids, _prompt_mask(input_ids, model_kwargs))
    config = copy.copy(generation_config)
    criteria = exact_criteria(criteria, own, beams=beams)
    draw = None
    if config.do_sample:
        processors, draw = prepare_draw(processors, config, own, input_ids.shape[0])
        config.do_sample = False
    processors = exact_processors(
        processors, own, counts_new_tokens=config.min_new_tokens is not None
    )
    if draw is not None:
        processors.append(draw)
        criteria = StoppingCriteriaList([Unmark(draw), *criteria])
    return {
        "logits_processor": processors,
        "stopping_criteria": criteria,
        "generation_config": config,
    }


def _prompt_mask(input_ids: Tensor, model_kwargs: dict[str, Any]) -> Tensor | None:
    mask: Tensor | None = model_kwargs.get("attention_mask")
    # With a cache, the mask may be that of the whole sequence and the ids only what is new.
    return None if mask is None else mask[:, mask.shape[1] - input_ids.shape[1] :]


@functools.cache
def _signature(function: Any) -> inspect.Signature:
    return inspect.signature(function)


def _named(method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Positional arguments by their names."""
    names = list(_signature(method.__func__).parameters)[1:]
    return {**dict(zip(names, args, strict=False)), **kwargs}
