"""Mixture of experts that several processes hold together, each a shard of every expert."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layercast import ops
from layercast.modules.experts import Experts
from layercast.modules.tensor_parallel import TensorParallel

_GATED = {"silu": ops.silu_mul, "gelu": ops.gelu_mul, "gelu_tanh": ops.gelu_tanh_mul}


class ParallelExperts(TensorParallel, Experts):
    """`Experts` of which each rank holds a run of every expert's intermediate features.

    Each expert's output is a row-parallel sum: the ranks' parts of it are joined before it is
    weighted. Summed first over the experts and then over the ranks, as is usual, the bits would
    depend on the number of ranks.
    """

    def __init__(self, whole: Experts) -> None:
        """Take over experts.

        Args:
            whole: Its parameters are about to be replaced by this rank's part of them: of
                `gate_up_proj` the run in gate and in up, of `down_proj` the run of its columns.
        """
        nn.Module.__init__(self)
        self.num_experts, self.hidden_dim = whole.num_experts, whole.hidden_dim
        self.intermediate_dim, self.activation = whole.intermediate_dim, whole.activation
        self.gate_up_proj, self.down_proj = whole.gate_up_proj, whole.down_proj

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Apply the chosen experts to every token.

        Args:
            hidden_states: Float32, shape (R, H), the same on every rank, as the others are.
            top_k_index: int64, shape (R, top_k).
            top_k_weights: Float32, shape (R, top_k).

        Returns:
            Float32, shape (R, H), the same on every rank.
        """
        experts, order = top_k_index.sort(dim=-1, stable=True)
        weights = top_k_weights.gather(-1, order)
        part = self._parts(hidden_states, experts)
        outputs = self.ranks.join(part)
        y = torch.zeros_like(hidden_states)
        for slot in range(experts.shape[-1]):  # by ascending expert, as in `ops.experts`
            y = y + weights[:, slot, None] * outputs[:, slot]
        return y.masked_fill(y.isnan(), torch.nan)

    def _parts(self, rows: Tensor, experts: Tensor) -> Tensor:
        """This rank's part of the output of each token's experts, shape (R, top_k, H)."""
        parameters, ranks = self._parameters, self.ranks
        gated = _GATED[self.activation]
        parts = rows.new_zeros((*experts.shape, self.hidden_dim))
        for expert in torch.unique(experts).tolist():
            token, slot = (experts == expert).nonzero(as_tuple=True)
            hidden = gated(ops.linear(rows[token], parameters["gate_up_proj"][expert]))
            parts[token, slot] = ops.linear_part(
                hidden,
                parameters["down_proj"][expert],
                in_features=self.intermediate_dim,
                part=ranks.rank,
                parts=ranks.size,
            )
        return parts
