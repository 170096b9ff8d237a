"""From a model's rotary embedding to `RotaryEmbedding`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from layercast.errors import LayercastError
from layercast.modules import RopeFrequencies, RotaryEmbedding, rope_frequencies

# Stock frequencies are float32 powers: a few ulp off, times the logarithm of the base.
_AGREEMENT = 1e-5
_POSITIONS = 32  # compared with the stock table; angles this small are accurate in float32
_TABLE_AGREEMENT = 1e-4
_KNOWN = {
    "default": frozenset[str](),
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor"}),
    "llama3": frozenset(
        {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
    ),
    "yarn": frozenset(
        {
            "factor",
            "original_max_position_embeddings",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        }
    ),
    "longrope": frozenset(
        {
            "factor",
            "original_max_position_embeddings",
            "attention_factor",
            "short_factor",
            "long_factor",
        }
    ),
}
_STRETCHED = ("llama3", "yarn", "longrope")  # from an original context length
_LENGTH_DEPENDENT = ("dynamic", "longrope")


def rotary_embedding(module: nn.Module, context_length: int | None) -> RotaryEmbedding | None:
    """Our embedding with the tables of a stock one, frequencies in binary64.

    Args:
        module: A `...RotaryEmbedding` of transformers; the default device is the CPU.
        context_length: What scalings that depend on a length are fixed for; None for the
            length the model was trained on.

    Returns:
        The module whose tables agree with the stock module's; None for a rope type or a layout
        that our formulas do not reproduce.
    """
    config: Any = getattr(module, "config", None)
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, dict):
        return None
    try:
        stock: Any = type(module)(config=config)
        if "rope_theta" not in parameters:  # one set for each type of layer that the model has
            parameters = {t: p for t, p in parameters.items() if hasattr(stock, f"{t}_inv_freq")}
        unextended = _frequencies(config, parameters, None)
        for interleaved in (False, True):
            rotary = RotaryEmbedding(unextended, interleaved=interleaved)
            if _agrees_with_stock(rotary, stock):
                extended = _frequencies(config, parameters, context_length)
                rotary = RotaryEmbedding(extended, interleaved=interleaved)
                rotary.config = config  # some models read it there
                return rotary
    except (TypeError, AttributeError, KeyError, LayercastError):
        return None  # another signature or rope type, or parameters that are incomplete
    return None


def _frequencies(
    config: Any, parameters: dict[str, Any], context_length: int | None
) -> RopeFrequencies | dict[str, RopeFrequencies]:
    if "rope_theta" in parameters:
        return frequencies_of(config, parameters, context_length)
    return {
        layer_type: frequencies_of(config, options, context_length)
        for layer_type, options in parameters.items()
    }


def frequencies_of(
    config: Any, parameters: dict[str, Any], context_length: int | None
) -> RopeFrequencies:
    """The frequencies that one set of rope parameters stands for.

    Args:
        config: Of the model.
        parameters: `rope_parameters` of all its layers, or of one type of layer.
        context_length: See `rotary_embedding`.

    Returns:
        The frequencies.

    Raises:
        KeyError: A rope type that no formula here is for.
        LayercastError: Values out of range.
    """
    rope_type = parameters.get("rope_type", "default")
    options = {k: v for k, v in parameters.items() if k in _KNOWN[rope_type] and v is not None}
    if rope_type in _STRETCHED:
        original = options.setdefault(
            "original_max_position_embeddings", config.max_position_embeddings
        )
        options.setdefault("factor", config.max_position_embeddings / original)
    if rope_type == "dynamic":
        options["max_position_embeddings"] = config.max_position_embeddings
    if rope_type in _LENGTH_DEPENDENT:
        options["context_length"] = context_length
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rotated = int(head_dim * (parameters.get("partial_rotary_factor") or 1.0))
    formula = getattr(rope_frequencies, rope_type)
    frequencies: RopeFrequencies = formula(rotated, parameters["rope_theta"], **options)
    return frequencies


def _agrees_with_stock(rotary: RotaryEmbedding, stock: Any) -> bool:
    """Fail closed where the module computes something else than its rope parameters say."""
    positions = torch.arange(_POSITIONS)[None]
    x = torch.zeros((1, _POSITIONS, 1))
    for layer_type, frequencies in rotary.frequencies.items():
        prefix = "" if layer_type is None else f"{layer_type}_"
        theirs: Tensor = getattr(stock, f"{prefix}inv_freq").double()
        planned = frequencies.inv_freq
        if planned is None:
            planned = rope_frequencies.plain(frequencies.head_dim, frequencies.base)
        ours = torch.tensor(planned, dtype=torch.float64)
        if theirs.shape != ours.shape or not torch.allclose(theirs, ours, rtol=_AGREEMENT, atol=0):
            return False
        named = {} if layer_type is None else {"layer_type": layer_type}
        with torch.inference_mode():
            pairs = zip(rotary(x, positions, **named), stock(x, positions, **named), strict=True)
            if not all(_same_table(a, b, frequencies.attention_scaling) for a, b in pairs):
                return False
    return True


def _same_table(ours: Tensor, theirs: Tensor, scaling: float) -> bool:
    return ours.shape == theirs.shape and torch.allclose(
        ours, theirs, rtol=0.0, atol=_TABLE_AGREEMENT * scaling
    )
