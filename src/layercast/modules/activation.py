"""Activation functions, elementwise in float32."""

from __future__ import annotations

from torch import Tensor, nn

from layercast import ops


class SiLU(nn.Module):
    """`x * sigmoid(x)`. See `layercast.ops.silu`.

    Attributes:
        gated: `layercast.ops.silu_mul`, which multiplies by a second tensor as well.
    """

    gated = staticmethod(ops.silu_mul)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the function.

        Args:
            input: Float32, any shape.

        Returns:
            Float32, same shape.
        """
        return ops.silu(input)


class GELU(nn.Module):
    """`x * Phi(x)`, Phi the normal distribution function. See `layercast.ops.gelu`.

    Attributes:
        gated: `layercast.ops.gelu_mul`, which multiplies by a second tensor as well.
    """

    gated = staticmethod(ops.gelu_mul)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the function.

        Args:
            input: Float32, any shape.

        Returns:
            Float32, same shape.
        """
        return ops.gelu(input)


class GELUTanh(nn.Module):
    """GELU with Phi approximated by tanh. See `layercast.ops.gelu_tanh`.

    Attributes:
        gated: `layercast.ops.gelu_tanh_mul`, which multiplies by a second tensor as well.
    """

    gated = staticmethod(ops.gelu_tanh_mul)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the function.

        Args:
            input: Float32, any shape.

        Returns:
            Float32, same shape.
        """
        return ops.gelu_tanh(input)


class Tanh(nn.Module):
    """Hyperbolic tangent. See `layercast.ops.tanh`."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply the function.

        Args:
            input: Float32, any shape.

        Returns:
            Float32, same shape.
        """
        return ops.tanh(input)
