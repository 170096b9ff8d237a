"""Row-parallel layers: the ranks' sums are added in the contract's tree."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from vllm.model_executor.layers.linear import RowParallelLinear

from layercast import ops
from layercast.modules.tensor_parallel import Ranks
from layercast.numerics import part_bounds


class RowParallel(RowParallelLinear):  # type: ignore[misc]
    """A layer of vLLM whose terms are dealt out to several ranks.

    A loaded layer becomes one by its class; `ranks` is set then.
    """

    ranks: Ranks

    def forward(self, input_: Tensor) -> Any:
        """Apply the layer.

        Args:
            input_: Float32, this rank's share of the features, or all of them if the layer
                splits them itself.

        Returns:
            Float32, shape (T, N), the same bits on every rank as one process has; with the bias
            beside it where vLLM wants it so.
        """
        ranks = self.ranks
        if not self.input_is_parallel:
            begin, end = part_bounds(self.input_size, ranks.rank, ranks.size)
            input_ = input_[..., begin:end]
        part = ops.linear_part(
            input_, self.weight, in_features=self.input_size, part=ranks.rank, parts=ranks.size
        )
        output = ranks.join(part, None if self.skip_bias_add else self.bias)
        if not self.return_bias:
            return output
        return output, self.bias if self.skip_bias_add else None
