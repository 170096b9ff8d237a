"""What vLLM's layers do with their weights: our operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.linear import LinearMethodBase
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase

from layercast import ops
from layercast.errors import GuaranteeError
from layercast.integrations.vllm.storage import create_stored_weight


class _Stored:
    """Makes a layer's weight, in the storage dtype.

    Attributes:
        converted: Whether the rest of the model computes by our operations too; until then the
            layer refuses to run.
    """

    converted = False

    def __init__(self, storage_dtype: torch.dtype | None) -> None:
        """Keep the dtype.

        Args:
            storage_dtype: See `storage.create_stored_weight`.
        """
        self.storage_dtype = storage_dtype

    def create_weights(
        self,
        layer: nn.Module,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **attributes: Any,
    ) -> None:
        """Called by the layer while it is made; see vLLM."""
        create_stored_weight(
            layer,
            sum(output_partition_sizes),
            input_size_per_partition,
            self.storage_dtype,
            attributes,
        )

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """Nothing: weights are read where they lie."""

    def check_converted(self) -> None:
        """Refuse to be part of a model that computes in another order elsewhere.

        Raises:
            GuaranteeError: The plugin did not take part when the model was loaded.
        """
        if not self.converted:
            raise GuaranteeError(
                "layercast: the model must be converted when it is loaded, got one that was not. "
                "vLLM must load the plugin in every process: leave VLLM_PLUGINS unset, or name "
                "layercast there."
            )

    def apply(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """See `layercast.ops.linear`.

        A merged layer's outputs (q, k and v; gate and up) have the bits of separate ones: each
        depends on its own row of the weight.

        Args:
            layer: Holds the weight.
            x: Float32, shape (T, K).
            bias: Shape (N,), or None.

        Returns:
            Float32, shape (T, N).

        Raises:
            GuaranteeError: The model around the layer was not converted.
        """
        self.check_converted()
        return ops.linear(x, layer._parameters["weight"], bias)


class LayerCastLinearMethod(_Stored, LinearMethodBase):  # type: ignore[misc]
    """Of linear layers; `linear.RowParallel` adds what several ranks compute."""


class LayerCastEmbeddingMethod(_Stored, QuantizeMethodBase):  # type: ignore[misc]
    """Of embeddings and heads."""

    def embedding(self, layer: Any, input_: Tensor) -> Tensor:
        """Rows of a table that one process holds; see `layercast.ops.embedding`."""
        self.check_converted()
        return ops.embedding(input_, layer._parameters["weight"])
