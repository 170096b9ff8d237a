"""Lengths at which a model's code takes another path, and how to pass them in few tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

#: Windows longer than this are shortened while the audit runs.
LONGEST_RUN = 256
SHORT_WINDOW = 16

WINDOW_NAMES = ("sliding_window", "attention_chunk_size")
_SWITCHING = ("dynamic", "longrope")


def text_config(model: Any) -> Any:
    """The part of a model's configuration that describes its decoder; None without one."""
    config = getattr(model, "config", None)
    get = getattr(config, "get_text_config", None)
    return get(decoder=True) if get is not None else config


def longest_window(model: Any) -> int:
    """The longest sliding or chunked window, in tokens; 0 for none."""
    config = text_config(model)
    return max((getattr(config, name, None) or 0 for name in WINDOW_NAMES), default=0)


def rope_switch(model: Any) -> int:
    """Length past which rotary frequencies change, in tokens; 0 where they never do."""
    config = text_config(model)
    lengths = [0]
    for parameters in rope_parameter_sets(config):
        if parameters.get("rope_type") in _SWITCHING:
            lengths.append(
                parameters.get("original_max_position_embeddings")
                or getattr(config, "original_max_position_embeddings", None)
                or config.max_position_embeddings
            )
    return max(lengths)


def rope_parameter_sets(config: Any) -> Iterator[dict[str, Any]]:
    """The rope parameters of a configuration: one set, or one for each layer type."""
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, dict):
        return
    yield parameters
    yield from (value for value in parameters.values() if isinstance(value, dict))


@contextmanager
def shortened_windows(model: nn.Module, length: int) -> Iterator[None]:
    """Give a model shorter windows in this block, in its configuration and its modules.

    A window is a number that its code compares with, so that a short one takes
    the same paths.

    Args:
        model: Changed in place, and back.
        length: Windows above it become this, in tokens.
    """
    holders: dict[int, Any] = {}
    for module in model.modules():
        holders[id(module)] = module
        config = getattr(module, "config", None)
        for part in (config, text_config(module)):
            if part is not None:
                holders[id(part)] = part
    changed = []
    try:
        for holder in holders.values():
            for name in WINDOW_NAMES:
                before = vars(holder).get(name)
                if isinstance(before, int) and before > length:
                    changed.append((holder, name, before))
                    setattr(holder, name, length)
        yield
    finally:
        for holder, name, before in changed:
            setattr(holder, name, before)
