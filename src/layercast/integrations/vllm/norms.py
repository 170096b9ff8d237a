"""Norms, with the addition of the residual that vLLM does in the same call."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from layercast import ops


class RMSNorm(nn.Module):
    """`layercast.ops.rms_norm` behind the signature of vLLM's.

    The residual is one IEEE addition, as it is where transformers writes it out.
    """

    def __init__(self, weight: Tensor, *, eps: float, unit_offset: bool) -> None:
        """Take over a norm.

        Args:
            weight: Shape (hidden,).
            eps: Added to the mean square.
            unit_offset: Scale by `1 + weight`, as Gemma does.
        """
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.eps = eps
        self.unit_offset = unit_offset

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Any:
        """Normalise the last axis.

        Args:
            x: Float32, shape (..., hidden).
            residual: Added to `x` first; None for nothing.

        Returns:
            The norm, and with a residual the sum that it is of.
        """
        if residual is not None:
            x = x + residual
        y = ops.rms_norm(x, self.weight, eps=self.eps, unit_offset=self.unit_offset)
        return y if residual is None else (y, x)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f"({self.weight.shape[0]},), eps={self.eps}, unit_offset={self.unit_offset}"
