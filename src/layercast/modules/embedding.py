"""Token embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layercast import ops
from layercast.modules.stored_weights import StoredWeights, stored_parameter


class Embedding(StoredWeights, nn.Embedding):
    """Rows of a 16- or 32-bit table, upcast exactly to float32, then scaled if the model does.

    See `layercast.ops.embedding`.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        weight_dtype: torch.dtype,
        padding_idx: int | None = None,
        scale: float | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Make an uninitialised table.

        Args:
            num_embeddings: Rows, V.
            embedding_dim: Columns, H.
            weight_dtype: Storage dtype of `weight`, shape (V, H).
            padding_idx: Kept for checkpoint code; it has no effect in inference.
            scale: Factor of every row, rounded to float32 (not to the storage dtype, which would
                make 59.867 into 59.75); None for no multiplication.
            device: Where the table is allocated; `meta` before loading.
        """
        nn.Module.__init__(self)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.max_norm = None
        self.norm_type = 2.0
        self.scale_grad_by_freq = False
        self.sparse = False
        self.scale = scale
        self.weight = stored_parameter(
            (num_embeddings, embedding_dim), weight_dtype, torch.device(device)
        )

    def forward(self, input: Tensor) -> Tensor:
        """Look rows up.

        Args:
            input: Token ids, int64, any shape.

        Returns:
            Float32, shape (*input.shape, embedding_dim).
        """
        rows = ops.embedding(input, self._parameters["weight"])
        return rows if self.scale is None else rows * self.scale

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        shown: str = super().extra_repr()
        return shown if self.scale is None else f"{shown}, scale={self.scale}"
