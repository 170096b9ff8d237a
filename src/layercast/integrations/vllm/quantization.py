"""The quantization method `layercast`, as vLLM knows it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.layers.quantization.base_config import (
    QuantizationConfig,
    QuantizeMethodBase,
)
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

from layercast.errors import UnsupportedError
from layercast.integrations.transformers.config import QUANT_METHOD, LayerCastConfig
from layercast.integrations.vllm.methods import LayerCastEmbeddingMethod, LayerCastLinearMethod
from layercast.integrations.vllm.versions import check_version, installed_version
from layercast.integrations.vllm.workers import prepare_workers


class LayerCastQuantization(QuantizationConfig):  # type: ignore[misc]
    """Weights as the checkpoint stores them, all arithmetic in float32 in a fixed order.

    Attributes:
        options: As in config.json of a converted checkpoint; the defaults for any other.
    """

    def __init__(self, options: LayerCastConfig | None = None) -> None:
        """Keep the options.

        Args:
            options: None for the defaults.

        Raises:
            BackendError: This release of vLLM was not tested.
            UnsupportedError: An option that vLLM cannot follow.
        """
        check_version(installed_version())
        super().__init__()
        self.options = options or LayerCastConfig()
        if self.options.modules_to_not_convert:
            raise UnsupportedError(
                "layercast: `modules_to_not_convert` must be left out in vLLM, got "
                f"{self.options.modules_to_not_convert}. Remove it from config.json, or run this "
                "checkpoint in transformers."
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A worker's process reads this before it makes the worker and looks for plugins."""
        prepare_workers()
        self.__dict__.update(state)

    def get_name(self) -> str:
        """Of the method."""
        return QUANT_METHOD

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        """Activations are float32: vLLM refuses a model without `--dtype float32`."""
        return [torch.float32]

    @classmethod
    def get_min_capability(cls) -> int:
        """Of a CUDA device: 8.0."""
        return 80

    @staticmethod
    def get_config_filenames() -> list[str]:
        """None: the options are in config.json, or they are the defaults."""
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LayerCastQuantization:
        """From `quantization_config` of config.json.

        Raises:
            ValueRangeError: An option or value this version does not know.
            DtypeError: A dtype that weights cannot be stored in.
        """
        return cls(LayerCastConfig.from_dict(config))

    def get_quant_method(self, layer: nn.Module, prefix: str) -> QuantizeMethodBase | None:
        """What holds and applies a layer's weights.

        Args:
            layer: While it is being made.
            prefix: Its name.

        Returns:
            None for layers without weights, such as attention.
        """
        if isinstance(layer, VocabParallelEmbedding):
            return LayerCastEmbeddingMethod(self.options.storage_dtype)
        if isinstance(layer, LinearBase):
            return LayerCastLinearMethod(self.options.storage_dtype)
        return None
