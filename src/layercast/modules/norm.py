"""Root-mean-square normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layercast import ops
from layercast.modules.stored_weights import StoredWeights, stored_parameter


class RMSNorm(StoredWeights):
    """Scale rows to unit root mean square, then by `weight` or by `1 + weight`.

    See `layercast.ops.rms_norm` for the order of roundings.
    """

    def __init__(
        self,
        hidden_size: int,
        *,
        eps: float,
        weight_dtype: torch.dtype,
        unit_offset: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        """Make an uninitialised normalisation.

        Args:
            hidden_size: Length of a row.
            eps: Added to the mean square; dimensionless, > 0.
            weight_dtype: Storage dtype of `weight`, shape (hidden_size,).
            unit_offset: Scale by `1 + weight` (Gemma) instead of `weight`.
            device: Where the weight is allocated; `meta` before loading.
        """
        nn.Module.__init__(self)
        self.variance_epsilon = eps
        self.unit_offset = unit_offset
        self.weight = stored_parameter((hidden_size,), weight_dtype, torch.device(device))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalise the last axis.

        Args:
            hidden_states: Float32, shape (..., hidden_size).

        Returns:
            Float32, same shape.
        """
        return ops.rms_norm(
            hidden_states,
            self._parameters["weight"],
            eps=self.variance_epsilon,
            unit_offset=self.unit_offset,
        )

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        offset = ", unit_offset=True" if self.unit_offset else ""
        return f"{tuple(self.weight.shape)}, eps={self.variance_epsilon}{offset}"
