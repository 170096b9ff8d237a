"""Normalisation of rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layercast import ops
from layercast.modules.stored_weights import StoredWeights, optional_parameter


class RMSNorm(StoredWeights):
    """Scale rows to unit root mean square, then by `weight` or by `1 + weight`.

    See `layercast.ops.rms_norm` for the order of roundings.
    """

    def __init__(
        self,
        hidden_size: int,
        *,
        eps: float,
        weight_dtype: torch.dtype | None,
        unit_offset: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        """Make an uninitialised normalisation.

        Args:
            hidden_size: Length of a row.
            eps: Added to the mean square; dimensionless, > 0.
            weight_dtype: Storage dtype of `weight`, shape (hidden_size,); None for no weight.
            unit_offset: Scale by `1 + weight` (Gemma) instead of `weight`.
            device: Where the weight is allocated; `meta` before loading.
        """
        nn.Module.__init__(self)
        self.hidden_size = hidden_size
        self.variance_epsilon = eps
        self.unit_offset = unit_offset
        optional_parameter(self, "weight", (hidden_size,), weight_dtype, device)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalise the last axis.

        Args:
            hidden_states: Float32, shape (..., hidden_size).

        Returns:
            Float32, same shape.
        """
        weight = self._parameters["weight"]
        if weight is None:  # times one is exact
            weight = hidden_states.new_ones(self.hidden_size)
        return ops.rms_norm(
            hidden_states, weight, eps=self.variance_epsilon, unit_offset=self.unit_offset
        )

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        offset = ", unit_offset=True" if self.unit_offset else ""
        return f"({self.hidden_size},), eps={self.variance_epsilon}{offset}"


class LayerNorm(StoredWeights):
    """Shift rows to zero mean, scale them to unit variance, then by `weight` and add `bias`.

    See `layercast.ops.layer_norm` for the order of roundings.
    """

    def __init__(
        self,
        hidden_size: int,
        *,
        eps: float,
        weight_dtype: torch.dtype | None,
        bias_dtype: torch.dtype | None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Make an uninitialised normalisation.

        Args:
            hidden_size: Length of a row.
            eps: Added to the variance; dimensionless, > 0.
            weight_dtype: Storage dtype of `weight`, shape (hidden_size,); None for no weight.
            bias_dtype: Storage dtype of `bias`, likewise.
            device: Where the parameters are allocated; `meta` before loading.
        """
        nn.Module.__init__(self)
        self.hidden_size = hidden_size
        self.eps = eps
        optional_parameter(self, "weight", (hidden_size,), weight_dtype, device)
        optional_parameter(self, "bias", (hidden_size,), bias_dtype, device)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the last axis.

        Args:
            input: Float32, shape (..., hidden_size).

        Returns:
            Float32, same shape.
        """
        parameters = self._parameters
        return ops.layer_norm(input, parameters["weight"], parameters["bias"], eps=self.eps)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f"({self.hidden_size},), eps={self.eps}"
