"""From hidden states to logits."""

from __future__ import annotations

from torch import Tensor
from vllm.model_executor.layers.logits_processor import LogitsProcessor

from layercast import ops


class Logits(LogitsProcessor):  # type: ignore[misc]
    """vLLM's, capped (Gemma) or divided (Granite) by our operations.

    A loaded one becomes one by its class; `divisor` is set then. vLLM multiplies by a reciprocal.

    The head is applied by its own method, `methods.LayerCastEmbeddingMethod`; where ranks hold
    shares of the vocabulary, their logits are gathered.
    """

    divisor: float

    def forward(
        self,
        lm_head: object,
        hidden_states: Tensor,
        embedding_bias: Tensor | None = None,
        skip_gather: bool = False,
    ) -> Tensor | None:
        """Apply the head.

        Args:
            lm_head: Holds the weight.
            hidden_states: Float32, shape (B, H).
            embedding_bias: Shape (V,), or None.
            skip_gather: Return this rank's share of the vocabulary.

        Returns:
            Float32, shape (B, V).
        """
        logits: Tensor | None = self._get_logits(
            hidden_states, lm_head, embedding_bias, skip_gather
        )
        # By a tensor: some devices turn division by a number into a multiplication.
        if logits is not None and self.soft_cap is not None:
            logits = ops.tanh(logits / logits.new_full((1,), self.soft_cap)) * self.soft_cap
        if logits is not None and self.divisor != 1.0:
            logits = logits / logits.new_full((1,), self.divisor)
        return logits
