"""What `generate` and `generate_batch` refuse before they compute."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from layercast.errors import UnsupportedError, ValueRangeError

_MODES = ("greedy_search", "sample", "beam_search", "assisted_generation")
_REFUSED = {
    "assistant_ensemble_weight": "It mixes the assistant's probabilities into the model's",
    "assistant_early_exit": "Give a model of its own as assistant_model, or use prompt lookup",
    "use_mtp": "Give a model of its own as assistant_model, or use prompt lookup",
    "speculation_type": "Give a model of its own as assistant_model, or use prompt lookup",
    "token_healing": "Heal the prompt's last token before calling generate",
    "constraints": "Use bad_words_ids, suppress_tokens or prefix_allowed_tokens_fn",
    "force_words_ids": "Use bad_words_ids, suppress_tokens or prefix_allowed_tokens_fn",
}


def check_decoding(
    model: Any,
    inputs: Tensor | None = None,
    generation_config: Any = None,
    assistant_model: Any = None,
    attention_mask: Tensor | None = None,
    custom_generate: Any = None,
    **kwargs: Any,
) -> None:
    """Refuse a call of `generate` that the contract does not cover, before it computes.

    Args:
        model: Its generation config holds the defaults.
        inputs: As given to `generate`, like all that follow.
        generation_config: See transformers.
        assistant_model: See transformers.
        attention_mask: See transformers.
        custom_generate: Refused.
        **kwargs: Options, and what goes to the model.

    Raises:
        UnsupportedError: A way of decoding, or an option, outside the contract.
        ValueRangeError: Padding on the right, or a limit that counts padding.
    """
    settings = GenerationConfig(**(generation_config or model.generation_config).to_dict())
    if generation_config is not None:
        settings.update(**model.generation_config.to_dict(), defaults_only=True)
    settings.update(**kwargs)
    mode = str(getattr(settings.get_generation_mode(assistant_model), "value", ""))
    if settings.cache_implementation == "paged":
        raise UnsupportedError(
            "generate: `cache_implementation` must not be 'paged' on a layercast model: padding "
            "would be taken for tokens. Call generate_batch with a list of token ids a prompt."
        )
    if custom_generate is not None or mode not in _MODES:
        got = mode if custom_generate is None else "custom_generate"
        raise UnsupportedError(
            "generate: decoding must be greedy, sampling, beam search or assisted on a layercast "
            f"model, got {got}. Pass do_sample=True or num_beams, not both, and leave out the "
            "options of other methods (a checkpoint's generation_config.json may set them)."
        )
    for name, remedy in _REFUSED.items():
        value = getattr(settings, name, None)
        if value is not None and value is not False:
            raise UnsupportedError(
                f"generate: `{name}` must be left out on a layercast model, got {value!r}. "
                f"{remedy}."
            )
    ids = inputs if inputs is not None else kwargs.get("input_ids")
    _check_prompts(ids, attention_mask, settings, kwargs)


def _check_prompts(
    ids: Tensor | None, mask: Tensor | None, settings: Any, kwargs: dict[str, Any]
) -> None:
    if settings.do_sample and (
        kwargs.get("inputs_embeds") is not None
        or (ids is not None and mask is not None and mask.shape != ids.shape)
    ):
        raise UnsupportedError(
            "generate: `input_ids` must hold the whole sequence when sampling, got embeddings or "
            "new tokens only: draws are keyed by the prompt's token ids. Pass all token ids; "
            "a cache may come along."
        )
    if mask is None or mask.ndim != 2:
        return
    if not bool(mask[:, -1].all()):
        raise ValueRangeError(
            "generate: `attention_mask` must end in real tokens, got padding on the right, so "
            "that a row's next token would be predicted from padding. Pad on the left: "
            "tokenizer.padding_side = 'left'."
        )
    if settings.max_length is not None and settings.max_new_tokens is None and not bool(mask.all()):
        raise ValueRangeError(
            "generate: `max_length` must be left out of a padded batch, got "
            f"{settings.max_length}: it counts padding, so that an answer's length would depend "
            "on the longest prompt beside it. Pass max_new_tokens."
        )


def batching_config(model: Any, generation_config: Any) -> Any:
    """The generation config of continuous batching, as `generate` would complete it.

    Args:
        model: Its generation config holds the defaults.
        generation_config: As given; None for the model's.

    Returns:
        A copy with all defaults, which are those of `generate`.

    Raises:
        UnsupportedError: A way of decoding, or an option, outside the contract, or that
            continuous batching would ignore.
    """
    arguments = {} if generation_config is None else {"generation_config": generation_config}
    check_decoding(model, **arguments)
    config = model._prepare_generation_config(generation_config)[0]
    for name in ("prompt_lookup_num_tokens", "stop_strings", "max_time"):
        if getattr(config, name, None) is not None:
            raise UnsupportedError(
                f"generate_batch: `{name}` must be left out: continuous batching would ignore it. "
                "Use generate."
            )
    if config.num_beams not in (None, 1):
        raise UnsupportedError(
            f"generate_batch: `num_beams` must be 1, got {config.num_beams}. Use generate for a "
            "beam search."
        )
    model._prepare_special_tokens(config, True, device=model.device)
    return config
