"""LayerCast in transformers.

Names are resolved when first used: the registration that `import layercast` arranges runs in the
middle of transformers' own import, when most of it cannot be imported yet.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layercast.integrations.transformers.attention import ATTENTION
    from layercast.integrations.transformers.config import LayerCastConfig
    from layercast.integrations.transformers.generation import Generation, generate
    from layercast.integrations.transformers.loading import load
    from layercast.integrations.transformers.quantizer import LayerCastQuantizer
    from layercast.integrations.transformers.sampling import Sampling

__all__ = [
    "ATTENTION",
    "Generation",
    "LayerCastConfig",
    "LayerCastQuantizer",
    "Sampling",
    "generate",
    "load",
]

_HOMES = {
    "ATTENTION": "attention",
    "Generation": "generation",
    "LayerCastConfig": "config",
    "LayerCastQuantizer": "quantizer",
    "Sampling": "sampling",
    "generate": "generation",
    "load": "loading",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
