"""Gated activations: both halves of a merged projection in, one out."""

from __future__ import annotations

from torch import Tensor, nn

from layercast import ops


class SiluAndMul(nn.Module):
    """`silu(gate) * up`. See `layercast.ops.silu_mul`."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it.

        Args:
            x: Float32, shape (..., 2 I), the gate first.

        Returns:
            Float32, shape (..., I).
        """
        return ops.silu_mul(x)


class GeluAndMul(nn.Module):
    """`gelu(gate) * up`. See `layercast.ops.gelu_mul`."""

    def forward(self, x: Tensor) -> Tensor:
        """See `SiluAndMul`."""
        return ops.gelu_mul(x)


class GeluTanhAndMul(nn.Module):
    """`gelu_tanh(gate) * up`. See `layercast.ops.gelu_tanh_mul`."""

    def forward(self, x: Tensor) -> Tensor:
        """See `SiluAndMul`."""
        return ops.gelu_tanh_mul(x)
