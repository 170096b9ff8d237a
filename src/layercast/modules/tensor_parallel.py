"""Layers that several processes hold together, each a shard of the weights.

A column-parallel layer computes some of the outputs whole, so its bits are those of one process.
A row-parallel layer computes some of the terms of every output: the ranks' sums are gathered and
added in the contract's tree, never reduced in an order of the communication library's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layercast import ops
from layercast.errors import ValueRangeError
from layercast.modules.embedding import Embedding
from layercast.modules.linear import Linear
from layercast.numerics import part_bounds


@dataclass(frozen=True)
class Ranks:
    """The processes that hold a layer together, and this one's place among them.

    Attributes:
        group: Name of their process group.
        rank: This process, from 0.
        size: How many: 1, 2, 4 or 8.
    """

    group: str
    rank: int
    size: int

    def gather(self, x: Tensor) -> Tensor:
        """See `layercast.ops.gather`."""
        return ops.gather(x, group=self.group, size=self.size)

    def join(self, part: Tensor, bias: Tensor | None = None) -> Tensor:
        """The whole of a sum of which each rank has computed a part.

        Args:
            part: Float32, shape (..., N), by `layercast.ops.linear_part`.
            bias: Added last; shape (N,), or None.

        Returns:
            Float32, shape (..., N), the same bits on every rank and on one process.
        """
        return ops.join_parts(self.gather(part), bias)


class TensorParallel(nn.Module):
    """Mixed into a module of which each rank holds a shard.

    Attributes:
        ranks: Who holds it together; set once the processes are known.
        takes_whole: Its inputs are the same on every rank; else each has its share of them.
    """

    ranks: Ranks
    takes_whole = True
    _shown: ClassVar[tuple[str, ...]] = ()

    def hold(self, ranks: Ranks) -> None:
        """Say who holds the module together.

        Args:
            ranks: The processes.
        """
        self.ranks = ranks

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        options = "".join(f", {name}={getattr(self, name)}" for name in self._shown)
        ranks = self.__dict__.get("ranks")
        where = "" if ranks is None else f", rank {ranks.rank} of {ranks.size}"
        return f"{super().extra_repr()}{options}{where}"


class ColumnParallelLinear(TensorParallel, Linear):
    """A `Linear` whose outputs are dealt out to the ranks in runs of equal length.

    Where they are gathered the last runs may be shorter, or empty.
    """

    _shown = ("gathers",)

    def __init__(self, whole: Linear, *, gathers: bool) -> None:
        """Take over a layer.

        Args:
            whole: Its parameters are about to be replaced by this rank's rows of them.
            gathers: Return every rank's outputs; else this rank's alone.
        """
        nn.Module.__init__(self)
        self.in_features, self.out_features = whole.in_features, whole.out_features
        self.gathers = gathers
        self.weight = whole.weight
        self.register_parameter("bias", whole.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            input: Float32, shape (..., in_features), the same on every rank.

        Returns:
            Float32, shape (..., out_features) if it gathers, else (..., out_features / size).
        """
        mine = super().forward(input)
        if not self.gathers:
            return mine
        longest = -(-self.out_features // self.ranks.size)
        padded = F.pad(mine, (0, longest - mine.shape[-1]))
        everyone = self.ranks.gather(padded).movedim(0, -2)
        return everyone.flatten(-2)[..., : self.out_features]


class RowParallelLinear(TensorParallel, Linear):
    """A `Linear` whose terms are dealt out to the ranks, cut at `numerics.part_bounds`."""

    _shown = ("splits",)

    def __init__(self, whole: Linear, *, splits: bool) -> None:
        """Take over a layer.

        Args:
            whole: Its weight is about to be replaced by this rank's columns of it; the bias
                stays whole.
            splits: The input is whole on every rank; else it is this rank's run of features.
        """
        nn.Module.__init__(self)
        self.in_features, self.out_features = whole.in_features, whole.out_features
        self.splits = self.takes_whole = splits
        self.weight = whole.weight
        self.register_parameter("bias", whole.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            input: Float32, shape (..., in_features) if it splits, else
                (..., in_features / size).

        Returns:
            Float32, shape (..., out_features), the same on every rank.
        """
        parameters, ranks = self._parameters, self.ranks
        if self.splits:
            begin, end = part_bounds(self.in_features, ranks.rank, ranks.size)
            input = input[..., begin:end]
        part = ops.linear_part(
            input,
            parameters["weight"],
            in_features=self.in_features,
            part=ranks.rank,
            parts=ranks.size,
        )
        return ranks.join(part, parameters["bias"])


class VocabularyParallelEmbedding(TensorParallel, Embedding):
    """An `Embedding` whose rows are dealt out to the ranks in runs, the last ones maybe shorter.

    Each token's row is selected from the rank that owns it. A sum over the ranks, which is
    usual, would turn -0 into +0.
    """

    def __init__(self, whole: Embedding) -> None:
        """Take over a table.

        Args:
            whole: Its weight is about to be replaced by this rank's rows of it.
        """
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = whole.num_embeddings, whole.embedding_dim
        self.padding_idx = whole.padding_idx
        self.max_norm = None
        self.norm_type = 2.0
        self.scale_grad_by_freq = False
        self.sparse = False
        self.scale = whole.scale
        self.weight = whole.weight

    def forward(self, input: Tensor) -> Tensor:
        """Look rows up.

        Args:
            input: Token ids, int64, any shape, the same on every rank.

        Returns:
            Float32, shape (*input.shape, embedding_dim), the same on every rank.

        Raises:
            ValueRangeError: An id lies outside the vocabulary.
        """
        ids, V = input.reshape(-1), self.num_embeddings
        if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < V):
            raise ValueRangeError(
                f"embedding: `ids` must lie in 0..{V - 1}, got values from {int(ids.min())} to "
                f"{int(ids.max())}. Check that tokenizer and checkpoint belong together."
            )
        mine, longest = self._parameters["weight"], -(-V // self.ranks.size)
        here = ids - self.ranks.rank * longest
        owned = (here >= 0) & (here < mine.shape[0])
        # Whatever stands in the rows of other ranks' tokens is not selected below.
        rows = mine.new_zeros((len(ids), self.embedding_dim))
        if len(mine):
            rows = mine[here.where(owned, 0)]
        everyone = self.ranks.gather(rows)
        order = torch.arange(len(ids), device=ids.device)
        selected = everyone[ids // longest, order]
        upcast = ops.embedding(order, selected).view(*input.shape, self.embedding_dim)
        return upcast if self.scale is None else upcast * self.scale
