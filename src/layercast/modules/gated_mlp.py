"""Gated feed-forward network: the activation and the product with `up` in one pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from layercast.modules.activation import GELU, GELUTanh, SiLU

Activation = SiLU | GELU | GELUTanh


class GatedMLP(nn.Module):
    """`down_proj(act_fn(gate_proj(x)) * up_proj(x))`, the feed-forward network of Llama and Qwen.

    Its layers are those of the model, under their names, so that checkpoints, tensor-parallel
    plans and adapters find them. The bits are those of the written formula: `ops.silu_mul` and
    its like round the activation before the product. `act_fn` is not called as a module: hooks on
    it see nothing.

    Attributes:
        layer_names: Of the layers, in the order of the constructor.
        activation_name: Of the activation.
    """

    layer_names = ("gate_proj", "up_proj", "down_proj")
    activation_name = "act_fn"

    def __init__(
        self, gate_proj: nn.Module, up_proj: nn.Module, down_proj: nn.Module, act_fn: Activation
    ) -> None:
        """Make the network of layers that exist.

        Args:
            gate_proj: (..., H) to (..., I), float32.
            up_proj: Likewise.
            down_proj: (..., I) to (..., H), float32.
            act_fn: `SiLU`, `GELU` or `GELUTanh` of `layercast.modules`.
        """
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = gate_proj, up_proj, down_proj
        self.act_fn = act_fn

    def forward(self, x: Tensor) -> Tensor:
        """Apply the network.

        Args:
            x: Float32, shape (..., H).

        Returns:
            Float32, shape (..., H).
        """
        layers: dict[str, Any] = self._modules
        hidden = layers["act_fn"].gated(layers["gate_proj"](x), layers["up_proj"](x))
        y: Tensor = layers["down_proj"](hidden)
        return y


class FusedGatedMLP(nn.Module):
    """`GatedMLP` with one layer for gate and up, in this order, as Phi-3 stores them.

    Attributes, order and hooks are as there, with `activation_fn` for `act_fn`.
    """

    layer_names = ("gate_up_proj", "down_proj")
    activation_name = "activation_fn"

    def __init__(
        self, gate_up_proj: nn.Module, down_proj: nn.Module, activation_fn: Activation
    ) -> None:
        """Make the network of layers that exist.

        Args:
            gate_up_proj: (..., H) to (..., 2 I), float32.
            down_proj: (..., I) to (..., H), float32.
            activation_fn: `SiLU`, `GELU` or `GELUTanh` of `layercast.modules`.
        """
        super().__init__()
        self.gate_up_proj, self.down_proj = gate_up_proj, down_proj
        self.activation_fn = activation_fn

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Apply the network.

        Args:
            hidden_states: Float32, shape (..., H).

        Returns:
            Float32, shape (..., H).
        """
        layers: dict[str, Any] = self._modules
        hidden = layers["activation_fn"].gated(layers["gate_up_proj"](hidden_states))
        y: Tensor = layers["down_proj"](hidden)
        return y
