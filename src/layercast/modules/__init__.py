"""Torch modules over the operations of `layercast.ops`."""

from layercast.modules.activation import GELU, GELUTanh, SiLU, Tanh
from layercast.modules.embedding import Embedding
from layercast.modules.experts import Experts, Router
from layercast.modules.linear import Linear, TransposedLinear
from layercast.modules.norm import LayerNorm, RMSNorm
from layercast.modules.rope_frequencies import RopeFrequencies
from layercast.modules.rotary import RotaryEmbedding

__all__ = [
    "GELU",
    "Embedding",
    "Experts",
    "GELUTanh",
    "LayerNorm",
    "Linear",
    "RMSNorm",
    "RopeFrequencies",
    "RotaryEmbedding",
    "Router",
    "SiLU",
    "Tanh",
    "TransposedLinear",
]
