"""Which models are taken: refused by class before loading, described by module after the swap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.activations import LinearActivation, ReLUSquaredActivation

from layercast.errors import UnsupportedError
from layercast.modules import (
    GELU,
    Embedding,
    Experts,
    FusedGatedMLP,
    GatedMLP,
    GELUTanh,
    LayerNorm,
    Linear,
    RMSNorm,
    RotaryEmbedding,
    Router,
    SiLU,
    Tanh,
    TransposedLinear,
)


@dataclass(frozen=True)
class Architecture:
    """One whose forward methods were read whole and which the tests run one by one.

    Beside the modules that are swapped, they hold only data movement and elementwise additions
    and multiplications, which are exact by IEEE 754, and the functions that
    `functions.ContractedFunctions` takes over.

    Attributes:
        calls_functions: Whether a forward method calls such a function.
    """

    calls_functions: bool = False


TESTED: dict[str, Architecture] = {
    "gemma2": Architecture(calls_functions=True),  # softcap of the logits
    "gemma3_text": Architecture(calls_functions=True),  # likewise
    "gpt2": Architecture(),
    "gpt_neox": Architecture(),
    "granite": Architecture(calls_functions=True),  # division of the logits
    "llama": Architecture(),
    "mistral": Architecture(),
    "mixtral": Architecture(),
    "olmo2": Architecture(),
    "phi3": Architecture(),
    "qwen2": Architecture(),
    "qwen3": Architecture(),
    "qwen3_moe": Architecture(),
    "smollm3": Architecture(),
}
"""`model_type` to architecture."""

_OURS = (
    Embedding, Experts, FusedGatedMLP, GELU, GELUTanh, GatedMLP, LayerNorm, Linear, RMSNorm,
    RotaryEmbedding, Router, SiLU, Tanh, TransposedLinear,
)  # fmt: skip
# Nothing, data movement or one exact operation; dropout does nothing in evaluation mode.
_EXACT = (nn.Identity, nn.Dropout, nn.ReLU, LinearActivation, ReLUSquaredActivation)
_WITHOUT_FORWARD = (nn.ModuleList, nn.ModuleDict)


def check_config(config: PreTrainedConfig) -> None:
    """Refuse a model that cannot be taken before any of its weights are fetched.

    Args:
        config: Of the model.

    Raises:
        UnsupportedError: Not a decoder-only text model, or one whose attention cannot be replaced.
    """
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False) or getattr(
        config, "add_cross_attention", False
    ):
        raise UnsupportedError(
            f"layercast: the model must be decoder-only, got {kind!r} with an encoder or "
            "cross-attention. Load it without layercast."
        )
    if config.get_text_config() is not config:
        raise UnsupportedError(
            f"layercast: the model must be a text model, got the multimodal {kind!r}. Save its "
            "language model as a checkpoint of its own, or load it without layercast."
        )
    cls = _causal_lm_class(config)
    # Code of its own would take the positions that stand in place of the mask for a mask.
    if not getattr(cls, "_supports_attention_backend", False):
        raise UnsupportedError(
            "layercast: attention must go through transformers' attention interface, got "
            f"{kind!r}, which computes it on its own. Load it without layercast."
        )


def _causal_lm_class(config: PreTrainedConfig) -> Any:
    cls = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if cls is None:
        raise UnsupportedError(
            "layercast: `model_type` must have a causal language model in transformers, got "
            f"{config.model_type!r}. Load it without layercast."
        )
    return cls


def check_class(model: PreTrainedModel) -> None:
    """Refuse a model whose own class cannot be taken, code from a hub repository included.

    Args:
        model: Its skeleton, before the swap.

    Raises:
        UnsupportedError: It has another head, or its class is not transformers' own.
    """
    check_config(model.config)
    cls, causal_lm = type(model), _causal_lm_class(model.config)
    is_decoder = model.base_model is model
    if cls.__module__ != causal_lm.__module__ or not (is_decoder or cls is causal_lm):
        raise UnsupportedError(
            f"layercast: the model class must be {causal_lm.__name__} of {causal_lm.__module__} or "
            f"its decoder, got {cls.__name__} of {cls.__module__}. Load it with "
            "AutoModelForCausalLM, and without trust_remote_code."
        )


def calls_functions(model: Any) -> bool:
    """Whether forward methods may call functions that the contract must take over.

    Args:
        model: Any.

    Returns:
        What was read of a tested architecture; True for any other.
    """
    tested = TESTED.get(model.config.model_type)
    return tested is None or tested.calls_functions


def stock_modules(model: PreTrainedModel) -> dict[str, str]:
    """Modules that still compute something of their own after the swap.

    A module that only calls its children is taken at its word in a tested architecture, whose
    code was read. In any other what it does between those calls is not looked at here: running
    the model tells.

    Args:
        model: After its modules were swapped.

    Returns:
        Name of each such module to its class, in the order of `named_modules`.
    """
    config: Any = model.config
    home = _causal_lm_class(config).__module__ if config.model_type in TESTED else None
    found = {}
    for name, module in model.named_modules():
        cls = type(module)
        if isinstance(module, _OURS) or cls in _EXACT or cls in _WITHOUT_FORWARD:
            continue
        only_calls = any(True for _ in module.children()) and not any(
            True for _ in module.parameters(recurse=False)
        )
        if only_calls and home in (None, cls.__module__):
            continue
        found[name] = f"{cls.__module__}.{cls.__name__}"
    return found


def check_modules(model: PreTrainedModel) -> None:
    """Refuse a model that still holds a module the contract does not cover.

    Args:
        model: After its modules were swapped.

    Raises:
        UnsupportedError: Names the first such module and its class.
    """
    for name, cls in stock_modules(model).items():
        raise UnsupportedError(
            f"layercast: every module must be covered by the contract, got `{name}` of class "
            f"{cls}. Leave `require` out to run it all the same, without the guarantee."
        )
