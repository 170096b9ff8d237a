"""Keys and values kept in 16 bits, where the configuration asks for it.

Rounding must come before any use, in the call that makes a key too: or the bits of a token would
depend on whether its neighbours were computed in the same call. So a cache layer rounds what it
is given and returns what it stored, and attention without a cache rounds its arguments.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    StaticLayer,
    StaticSlidingWindowLayer,
)

from layercast.errors import GuaranteeError, UnsupportedError
from layercast.integrations.transformers.config import cache_dtype_of

CACHE_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer, StaticLayer, StaticSlidingWindowLayer)


@functools.cache
def _rounding(cls: Any, dtype: torch.dtype) -> Any:
    def update(
        self: Any, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """As in transformers, with keys and values rounded to nearest even first."""
        stored = (key_states.to(dtype), value_states.to(dtype))
        result: tuple[Tensor, Tensor] = cls.update(self, *stored, *args, **kwargs)
        return result

    # One base: layers that exist change their class, which two with fields of their own forbid.
    return type(cls.__name__, (cls,), {"update": update, "rounds_to": dtype})


def is_rounding(layer: Any) -> bool:
    """Whether a cache layer is one of transformers' made to round."""
    return hasattr(layer, "rounds_to") and type(layer).__base__ in CACHE_LAYERS


def check_cache(cache: Any, *, capturing: bool) -> None:
    """Refuse caches that store otherwise than the contract says.

    Args:
        cache: Of a forward pass.
        capturing: Whether a CUDA graph is being captured, which holds every number of Python's as
            it is now: a cache must then count on the device, and be as large as it will be.

    Raises:
        UnsupportedError: Another kind of cache, or one that a graph would not carry on.
    """
    layers = getattr(cache, "layers", (cache,))
    others = {type(layer) for layer in layers if not is_rounding(layer)} - {*CACHE_LAYERS}
    if others:
        names = ", ".join(sorted(kind.__name__ for kind in others))
        raise UnsupportedError(
            f"layercast: the key/value cache must be a DynamicCache or a StaticCache, got {names}. "
            "Caches that quantise keys and values round them at times that depend on the batch."
        )
    if not capturing:
        return
    kinds: set[Any] = {
        type(layer).__base__ if is_rounding(layer) else type(layer) for layer in layers
    }
    if kinds != {StaticLayer}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds)) or "none that has its layers yet"
        raise UnsupportedError(
            "layercast: the key/value cache must be a StaticCache without sliding windows while a "
            f"CUDA graph is captured, got {names}: replayed, it would stay at this step. Run the "
            "model without a graph."
        )
    if not all(layer.is_initialized for layer in layers):
        raise UnsupportedError(
            "layercast: the key/value cache must have been used before a CUDA graph is captured, "
            "got a StaticCache without memory yet. Run the prompt, or one step, first."
        )


def round_cache(config: Any, arguments: dict[str, Any], name: str) -> None:
    """Make the cache of a forward pass store what the model's configuration says.

    Args:
        config: Of the model.
        arguments: Keyword arguments of the decoder's forward; gets the cache that the model
            would otherwise make, if it is to make one.
        name: Of the cache among them.

    Raises:
        GuaranteeError: A cache that holds keys in another dtype.
    """
    dtype = cache_dtype_of(config)
    if dtype is torch.float32:
        return
    cache = arguments.get(name)
    if cache is None:
        use_cache = arguments.get("use_cache")
        if not (config.use_cache if use_cache is None else use_cache):
            return
        cache = arguments[name] = DynamicCache(config=config)
    _store_in(cache, dtype)


def _store_in(cache: Cache, dtype: torch.dtype) -> None:
    for layer in cache.layers:
        if type(layer) in CACHE_LAYERS:
            keys = getattr(layer, "keys", None)
            if keys is not None and keys.numel() and keys.dtype is not dtype:
                raise GuaranteeError(
                    f"layercast: the key/value cache must hold {dtype} keys on a model loaded with "
                    f"that kv_dtype, got {keys.dtype}. Start from an empty cache."
                )
            kind: Any = type(layer)
            layer.__class__ = _rounding(kind, dtype)
    later = getattr(cache, "layer_class_to_replicate", None)
    if later in CACHE_LAYERS:
        cache.layer_class_to_replicate = _rounding(later, dtype)
