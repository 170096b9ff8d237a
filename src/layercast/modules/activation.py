"""Activation functions."""

from __future__ import annotations

from torch import Tensor, nn

from layercast import ops


class SiLU(nn.Module):
    """`x * sigmoid(x)` elementwise, float32. See `layercast.ops.silu`."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply the function.

        Args:
            input: Float32, any shape.

        Returns:
            Float32, same shape.
        """
        return ops.silu(input)
