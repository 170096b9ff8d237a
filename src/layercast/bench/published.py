"""LayerCast as published: weights upcast whole before each product, the rest of a model in float32.

Yuan et al. 2025, arXiv:2506.09501, section 5, whose code patches one old release of vLLM in the
same way. The order of summation is whatever the library chooses.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PublishedLinear(nn.Linear):
    """`linear` of a weight stored in 16 bits, upcast at each call."""

    def forward(self, input: Tensor) -> Tensor:
        """Upcast weight and bias, then multiply as float32."""
        bias = None if self.bias is None else self.bias.float()
        return F.linear(input, self.weight.float(), bias)


class PublishedEmbedding(nn.Embedding):
    """Rows of a table stored in 16 bits, upcast."""

    def forward(self, input: Tensor) -> Tensor:
        """Look the rows up, then upcast them."""
        return super().forward(input).float()


def publish(model: nn.Module) -> nn.Module:
    """Turn a model loaded in 16 bits into the published form, in place.

    Args:
        model: Its linear layers and embeddings keep their storage (and stay tied); what else it
            holds becomes float32.

    Returns:
        The same model.
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = PublishedLinear
        elif type(module) is nn.Embedding:
            module.__class__ = PublishedEmbedding
        else:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()
    return model
