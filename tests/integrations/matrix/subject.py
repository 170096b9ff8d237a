"""What the axes of the matrix are tried on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

from forward_variants import SEQUENCES, alone, same_bits
from torch import Tensor

Pairs = Iterator[tuple[Tensor, Tensor]]
"""(expected, got): tensors that must hold the same bits."""


class Subject:
    """A model, LayerCast or stock, with its own log_softmax."""

    def __init__(self, model, log_softmax: Callable[[Tensor], Tensor]) -> None:
        self.model = model
        self.log_softmax = log_softmax

    @cached_property
    def expected(self) -> list[Tensor]:
        """Log-probabilities of each sequence by itself, in one call, without a cache."""
        return [self.log_softmax(alone(self.model, tokens)) for tokens in SEQUENCES]

    def count(self, axis: Callable[[Subject], Pairs]) -> dict[str, int]:
        """How many pairs an axis has, and how many of them differ."""
        same = [same_bits(expected, got) for expected, got in axis(self)]
        return {"pairs": len(same), "differing": same.count(False)}

    def differs(self, axis: Callable[[Subject], Pairs]) -> bool:
        """Whether any pair differs; stops at the first."""
        return any(not same_bits(expected, got) for expected, got in axis(self))
