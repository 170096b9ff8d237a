"""Torch modules over the operations of `layercast.ops`."""

from layercast.modules.activation import SiLU
from layercast.modules.embedding import Embedding
from layercast.modules.linear import Linear
from layercast.modules.norm import RMSNorm
from layercast.modules.rope_frequencies import RopeFrequencies
from layercast.modules.rotary import RotaryEmbedding

__all__ = ["Embedding", "Linear", "RMSNorm", "RopeFrequencies", "RotaryEmbedding", "SiLU"]
