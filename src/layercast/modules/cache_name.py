"""A model calls its key/value cache `cache`; before transformers 5.24, `past_key_values`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

_NAME, _FORMER_NAME = "cache", "past_key_values"


def cache_name(forward: Callable[..., Any]) -> str:
    """Return the name of the cache among the arguments of a model's forward.

    Args:
        forward: Of a class or an instance.
    """
    return _cache_name(getattr(forward, "__func__", forward))


@functools.cache
def _cache_name(forward: Callable[..., Any]) -> str:
    return _NAME if _NAME in inspect.signature(forward).parameters else _FORMER_NAME


def rename_cache(name: str, arguments: dict[str, Any]) -> None:
    """Put a cache that was given by its former name under the present one.

    Args:
        name: See `cache_name`.
        arguments: Of the forward pass, by name. Where both are given they are left, for the
            model's own error.
    """
    if name != _FORMER_NAME and _FORMER_NAME in arguments and name not in arguments:
        arguments[name] = arguments.pop(_FORMER_NAME)


def cache_of(output: Mapping[str, Any]) -> Any:
    """Return the cache that a model's output holds."""
    return output[_NAME if _NAME in output else _FORMER_NAME]
