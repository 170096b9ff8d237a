"""A model's configuration made small: every path of its code, hardly any weights."""

from __future__ import annotations

import copy
from typing import Any

from layercast.auditing.windows import SHORT_WINDOW, WINDOW_NAMES, rope_parameter_sets

_VOCABULARY = 128
_WIDEST = 512
_HIDDEN_A_HEAD = 16  # where heads times their size would be wider, and need not be the width
_ORIGINAL_POSITIONS = 32
_POSITIONS = 512

_INTERMEDIATE = (
    "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "intermediate_size_mlp",
    "shared_intermediate_size",
)  # fmt: skip
_EXPERT_SIZES = ("moe_intermediate_size", "shared_expert_intermediate_size")
_EXPERT_SIZE = 64
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "moe_k", "top_k")
_SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id")
# Layers differ by the remainder of their index.
_PERIODS = (
    "sliding_window_pattern", "decoder_sparse_step", "no_rope_layer_interval",
    "full_attention_interval", "interleave_moe_layer_step", "moe_layer_freq",
)  # fmt: skip
_LISTS_OF_LAYERS = ("mlp_only_layers", "moe_layers", "full_attn_idxs")


def shrunken(config: Any) -> Any:
    """A copy that builds a model of a few layers, heads, experts and tokens.

    Kept are the head size, the ratio of query to key heads, the number of experts chosen, the
    rope scaling and its ratio of lengths, and at least one layer of every type; windows and
    original context lengths become so short that a few tokens pass them.

    Args:
        config: Of a decoder-only model of transformers; not changed.

    Returns:
        A configuration of the same class.
    """
    small = copy.deepcopy(config)
    _shrink_heads(small)
    for name in _INTERMEDIATE:
        if isinstance(getattr(small, name, None), int):
            setattr(small, name, 2 * small.hidden_size)
    _shrink_experts(small)
    _shrink_layers(small)
    _shrink_vocabulary(small)
    for name in WINDOW_NAMES:
        window = getattr(small, name, None)
        if isinstance(window, int) and window > SHORT_WINDOW:
            setattr(small, name, SHORT_WINDOW)
    _shrink_positions(small)
    return small


def _shrink_heads(config: Any) -> None:
    heads = int(config.num_attention_heads)
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    explicit = getattr(config, "head_dim", None)
    ratio = max(heads // key_heads, 1)
    few = 2 if ratio <= 2 and key_heads > 1 else 1
    if ratio == 1 and heads > 1:
        few = 2
    head_dim = int(explicit or config.hidden_size // heads)
    config.num_attention_heads = few * ratio
    if getattr(config, "num_key_value_heads", None) is not None:
        config.num_key_value_heads = few
    width = few * ratio * head_dim
    if explicit and width > _WIDEST:
        width = few * ratio * _HIDDEN_A_HEAD
    config.hidden_size = width


def _shrink_experts(config: Any) -> None:
    for name in _EXPERT_SIZES:
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, _EXPERT_SIZE)
    chosen = max((getattr(config, name, None) or 0 for name in _CHOSEN), default=0)
    groups = getattr(config, "n_group", None) or 1
    for name in _EXPERTS:
        experts = getattr(config, name, None)
        if isinstance(experts, int) and experts > 1:
            wanted = max(4, 2 * int(chosen))
            wanted += -wanted % groups
            setattr(config, name, min(experts, wanted))


def _shrink_layers(config: Any) -> None:
    count = int(config.num_hidden_layers)
    lists = {
        name: value
        for name, value in vars(config).items()
        if isinstance(value, list | tuple)
        and len(value) == count
        and count > 1
        and name not in _LISTS_OF_LAYERS
    }
    periods = [getattr(config, name, None) for name in _PERIODS]
    prefix = max([2, *(p for p in periods if isinstance(p, int) and not isinstance(p, bool))])
    special = {name: getattr(config, name, None) or [] for name in _LISTS_OF_LAYERS}
    kept: list[int] = []
    seen: set[str] = set()
    for index in range(count):
        kind = repr([value[index] for value in lists.values()])
        kind += repr([index in layers for layers in special.values()])
        if index < prefix or kind not in seen:
            kept.append(index)
            seen.add(kind)
    for name, value in lists.items():
        setattr(config, name, [value[index] for index in kept])
    for name, layers in special.items():
        if layers:
            setattr(config, name, [new for new, old in enumerate(kept) if old in layers])
    dense = getattr(config, "first_k_dense_replace", None)
    if isinstance(dense, int) and dense:
        config.first_k_dense_replace = 1
    config.num_hidden_layers = len(kept)


def _shrink_vocabulary(config: Any) -> None:
    config.vocab_size = min(int(config.vocab_size), _VOCABULARY)
    for name in _SPECIAL_TOKENS:
        if getattr(config, name, None) is not None:
            setattr(config, name, 0)


def _shrink_positions(config: Any) -> None:
    longest = getattr(config, "max_position_embeddings", None)
    if not isinstance(longest, int):
        return
    originals = [
        parameters["original_max_position_embeddings"]
        for parameters in rope_parameter_sets(config)
        if parameters.get("original_max_position_embeddings")
    ]
    declared = getattr(config, "original_max_position_embeddings", None)
    original = max([*originals, declared or 0])
    if original:
        for parameters in rope_parameter_sets(config):
            if parameters.get("original_max_position_embeddings"):
                parameters["original_max_position_embeddings"] = _ORIGINAL_POSITIONS
        if declared:
            config.original_max_position_embeddings = _ORIGINAL_POSITIONS
        # Attention factors come from the ratio.
        config.max_position_embeddings = max(longest * _ORIGINAL_POSITIONS // original, 1)
    elif any(p.get("rope_type") == "dynamic" for p in rope_parameter_sets(config)):
        config.max_position_embeddings = _ORIGINAL_POSITIONS
    else:
        config.max_position_embeddings = min(longest, _POSITIONS)
