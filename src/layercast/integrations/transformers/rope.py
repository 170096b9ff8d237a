"""From a model's rope parameters to `RopeFrequencies`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from layercast.errors import UnsupportedError
from layercast.modules import RopeFrequencies, rope_frequencies

# Stock frequencies are float32 powers: a few ulp off, times the logarithm of the base.
_AGREEMENT = 1e-5
_KNOWN = {
    "default": frozenset[str](),
    "linear": frozenset({"factor"}),
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
}


def rope_frequencies_of(module: nn.Module, name: str) -> RopeFrequencies:
    """The frequencies that a stock rotary embedding would use, in binary64.

    Args:
        module: A `...RotaryEmbedding` of transformers, on any device.
        name: Of the module in its model, for errors.

    Returns:
        Frequencies that agree with the stock module's float32 ones.

    Raises:
        UnsupportedError: A rope type that is not fixed at load, or that our formulas do not
            reproduce.
    """
    config: Any = getattr(module, "config", None)
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, dict) or "rope_theta" not in parameters:
        raise _unsupported(name, module, "no single set of rope_parameters")
    rope_type = parameters.get("rope_type", "default")
    if rope_type not in _KNOWN:
        raise _unsupported(name, module, f"rope_type {rope_type!r}")
    if float(parameters.get("partial_rotary_factor") or 1.0) != 1.0:
        raise _unsupported(name, module, "partial_rotary_factor")
    options = {k: v for k, v in parameters.items() if k in _KNOWN[rope_type] and v is not None}
    if rope_type in ("llama3", "yarn"):
        options.setdefault("original_max_position_embeddings", config.max_position_embeddings)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    formula = getattr(rope_frequencies, rope_type)
    try:
        frequencies: RopeFrequencies = formula(head_dim, parameters["rope_theta"], **options)
    except TypeError as error:
        raise _unsupported(name, module, f"incomplete rope_parameters ({error})") from error
    _check_against_stock(frequencies, module, name)
    return frequencies


def _check_against_stock(frequencies: RopeFrequencies, module: Any, name: str) -> None:
    """Fail closed where the module computes something else than its rope parameters say."""
    with torch.device("cpu"):
        stock = type(module)(config=module.config)
    theirs = stock.inv_freq.double()
    planned = frequencies.inv_freq
    if planned is None:
        planned = rope_frequencies.plain(frequencies.head_dim, frequencies.base)
    ours = torch.tensor(planned, dtype=torch.float64, device="cpu")
    if theirs.shape != ours.shape or not torch.allclose(theirs, ours, rtol=_AGREEMENT, atol=0.0):
        raise _unsupported(name, module, "frequencies that its rope_parameters do not give")
    if not math.isclose(stock.attention_scaling, frequencies.attention_scaling, rel_tol=_AGREEMENT):
        raise _unsupported(
            name, module, "an attention scaling that its rope_parameters do not give"
        )


def _unsupported(name: str, module: nn.Module, got: str) -> UnsupportedError:
    return UnsupportedError(
        f"layercast: the rotary embedding `{name}` ({type(module).__name__}) must be of rope_type "
        f"{', '.join(_KNOWN)}, got {got}. Types that look at the longest position of a batch "
        "contradict the guarantee; load this model without layercast."
    )
