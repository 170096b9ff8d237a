"""Torch modules over the operations of `layercast.ops`."""

from layercast.modules.activation import GELU, GELUTanh, SiLU, Tanh
from layercast.modules.embedding import Embedding
from layercast.modules.experts import Experts, Router
from layercast.modules.gated_mlp import FusedGatedMLP, GatedMLP
from layercast.modules.linear import Linear, TransposedLinear
from layercast.modules.norm import LayerNorm, RMSNorm
from layercast.modules.parallel_experts import ParallelExperts
from layercast.modules.rope_frequencies import RopeFrequencies
from layercast.modules.rotary import RotaryEmbedding
from layercast.modules.tensor_parallel import (
    ColumnParallelLinear,
    Ranks,
    RowParallelLinear,
    TensorParallel,
    VocabularyParallelEmbedding,
)

__all__ = [
    "GELU",
    "ColumnParallelLinear",
    "Embedding",
    "Experts",
    "FusedGatedMLP",
    "GELUTanh",
    "GatedMLP",
    "LayerNorm",
    "Linear",
    "ParallelExperts",
    "RMSNorm",
    "Ranks",
    "RopeFrequencies",
    "RotaryEmbedding",
    "Router",
    "RowParallelLinear",
    "SiLU",
    "Tanh",
    "TensorParallel",
    "TransposedLinear",
    "VocabularyParallelEmbedding",
]
