"""Mixture of experts: the router, and the experts with their weights in 3-D tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layercast import ops
from layercast.modules.stored_weights import StoredWeights, stored_parameter


class Router(StoredWeights):
    """Chooses each token's experts and weighs them. See `layercast.ops.route`."""

    def __init__(
        self,
        num_experts: int,
        hidden_size: int,
        *,
        top_k: int,
        renormalize: bool,
        weight_dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        """Make an uninitialised router.

        Args:
            num_experts: E.
            hidden_size: H.
            top_k: Experts per token.
            renormalize: Divide the chosen weights by their sum.
            weight_dtype: Storage dtype of `weight`, shape (E, H).
            device: Where the weight is allocated; `meta` before loading.
        """
        nn.Module.__init__(self)
        self.num_experts = num_experts
        self.hidden_dim = hidden_size
        self.top_k = top_k
        self.renormalize = renormalize
        self.weight = stored_parameter(
            (num_experts, hidden_size), weight_dtype, torch.device(device)
        )

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Route every token.

        Args:
            hidden_states: Float32, shape (..., H); R rows in all.

        Returns:
            Router logits, float32, (R, E); weights, float32, (R, top_k); experts, int64,
            (R, top_k).
        """
        rows = hidden_states.reshape(-1, self.hidden_dim)
        logits = ops.linear(rows, self._parameters["weight"])
        weights, indices = ops.route(logits, self.top_k, renormalize=self.renormalize)
        return logits, weights, indices

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f"{self.num_experts}, top_k={self.top_k}, renormalize={self.renormalize}"


class Experts(StoredWeights):
    """Gated feed-forward by each token's experts. See `layercast.ops.experts`."""

    def __init__(
        self,
        num_experts: int,
        hidden_size: int,
        intermediate_size: int,
        *,
        activation: str,
        gate_up_dtype: torch.dtype,
        down_dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        """Make uninitialised experts.

        Args:
            num_experts: E.
            hidden_size: H.
            intermediate_size: I.
            activation: "silu", "gelu" or "gelu_tanh".
            gate_up_dtype: Storage dtype of `gate_up_proj`, shape (E, 2 I, H), the gate first.
            down_dtype: Storage dtype of `down_proj`, shape (E, H, I).
            device: Where the weights are allocated; `meta` before loading.
        """
        nn.Module.__init__(self)
        self.num_experts = num_experts
        self.hidden_dim = hidden_size
        self.intermediate_dim = intermediate_size
        self.activation = activation
        place = torch.device(device)
        self.gate_up_proj = stored_parameter(
            (num_experts, 2 * intermediate_size, hidden_size), gate_up_dtype, place
        )
        self.down_proj = stored_parameter(
            (num_experts, hidden_size, intermediate_size), down_dtype, place
        )

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Apply the chosen experts to every token.

        Args:
            hidden_states: Float32, shape (R, H).
            top_k_index: int64, shape (R, top_k).
            top_k_weights: Float32, shape (R, top_k).

        Returns:
            Float32, shape (R, H).
        """
        parameters = self._parameters
        return ops.experts(
            hidden_states,
            parameters["gate_up_proj"],
            parameters["down_proj"],
            top_k_index,
            top_k_weights,
            activation=self.activation,
        )

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return (
            f"{self.num_experts}, {self.hidden_dim} x {self.intermediate_dim}, "
            f"activation={self.activation}"
        )
