"""Linear layer and language-model head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layercast import ops
from layercast.modules.stored_weights import (
    StoredWeights,
    optional_parameter,
    stored_parameter,
)


class Linear(StoredWeights, nn.Linear):
    """`x @ weight.T + bias` in float32, summed in the contracted order, from 16- or 32-bit weights.

    See `layercast.ops.linear` for the order. A subclass of `torch.nn.Linear`, so
    that parameter names, tying and checkpoint code keep working.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        weight_dtype: torch.dtype,
        bias_dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Make an uninitialised layer.

        Args:
            in_features: K.
            out_features: N.
            weight_dtype: Storage dtype of `weight`, shape (N, K).
            bias_dtype: Storage dtype of `bias`, shape (N,); None for no bias.
            device: Where the parameters are allocated; `meta` before loading.
        """
        nn.Module.__init__(self)
        self.in_features = in_features
        self.out_features = out_features
        self.weight = stored_parameter(
            (out_features, in_features), weight_dtype, torch.device(device)
        )
        optional_parameter(self, "bias", (out_features,), bias_dtype, device)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            input: Float32, shape (..., in_features).

        Returns:
            Float32, shape (..., out_features).
        """
        parameters = self._parameters
        return ops.linear(input, parameters["weight"], parameters["bias"])


class TransposedLinear(StoredWeights):
    """`x @ weight + bias` with the weight stored as (in, out), as GPT-2's `Conv1D` does.

    The same arithmetic as `Linear`. See `layercast.ops.linear` for the order.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        weight_dtype: torch.dtype,
        bias_dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Make an uninitialised layer.

        Args:
            in_features: K.
            out_features: N.
            weight_dtype: Storage dtype of `weight`, shape (K, N).
            bias_dtype: Storage dtype of `bias`, shape (N,); None for no bias.
            device: Where the parameters are allocated; `meta` before loading.
        """
        nn.Module.__init__(self)
        self.nx = in_features
        self.nf = out_features
        self.weight = stored_parameter(
            (in_features, out_features), weight_dtype, torch.device(device)
        )
        optional_parameter(self, "bias", (out_features,), bias_dtype, device)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: Float32, shape (..., in_features).

        Returns:
            Float32, shape (..., out_features).
        """
        parameters = self._parameters
        return ops.linear(x, parameters["weight"].t(), parameters["bias"])

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f"in_features={self.nx}, out_features={self.nf}, bias={self.bias is not None}"
