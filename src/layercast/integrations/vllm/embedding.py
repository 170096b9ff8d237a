"""Embeddings dealt out over the vocabulary: a row is taken from the rank that owns it."""

from __future__ import annotations

import torch
from torch import Tensor
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

from layercast import ops
from layercast.errors import ValueRangeError
from layercast.modules.tensor_parallel import Ranks


class VocabularyParallel(VocabParallelEmbedding):  # type: ignore[misc]
    """A table of vLLM held by several ranks; a loaded one becomes one by its class.

    vLLM adds up what the ranks have, zeros from all but one; that turns -0 into +0.
    """

    ranks: Ranks

    def forward(self, input_: Tensor) -> Tensor:
        """Look rows up.

        Args:
            input_: Token ids, any shape, the same on every rank.

        Returns:
            Float32, shape (*input_.shape, H).

        Raises:
            ValueRangeError: An id lies outside the vocabulary.
        """
        ids = input_.reshape(-1).long()
        if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < self.org_vocab_size):
            raise ValueRangeError(
                f"layercast: token ids must lie in 0..{self.org_vocab_size - 1}, got values from "
                f"{int(ids.min())} to {int(ids.max())}. Use the tokenizer of this checkpoint."
            )
        # No tokens were added to the vocabulary, so that every rank owns one run of it.
        longest = self.num_embeddings_per_partition
        here = ids - self.ranks.rank * longest
        owned = (here >= 0) & (here < longest)
        mine = self.weight[here.where(owned, 0)]
        order = torch.arange(len(ids), device=ids.device)
        selected = self.ranks.gather(mine)[ids // longest, order]
        return ops.embedding(order, selected).view(*input_.shape, self.embedding_dim)
