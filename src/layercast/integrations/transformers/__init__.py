"""LayerCast in transformers: importing this registers the quantization method and the attention."""

from layercast.integrations.transformers.attention import ATTENTION
from layercast.integrations.transformers.config import LayerCastConfig
from layercast.integrations.transformers.generation import Generation, generate
from layercast.integrations.transformers.loading import load
from layercast.integrations.transformers.quantizer import LayerCastQuantizer

__all__ = ["ATTENTION", "Generation", "LayerCastConfig", "LayerCastQuantizer", "generate", "load"]
