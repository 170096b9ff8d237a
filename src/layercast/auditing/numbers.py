"""Python numbers that enter a model's arithmetic: constants, or computed where nobody saw it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where numbers enter.

    Attributes:
        operation: Which takes them.
        module: Path of the module.
        source: File and line.
    """

    operation: str
    module: str
    source: str


class NumberWatch:
    """Compares the numbers used at one place in different passes.

    Every pass is over other tokens or another number of them. A constant of the
    model is the same in all; a number that is not came from the data or from the
    batch's shape, through Python or NumPy, where no operation is recorded.
    """

    def __init__(self) -> None:
        self._seen: dict[Place, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))

    def note(self, place: Place, forward: int, numbers: Any) -> None:
        """Take down numbers used in one pass.

        Args:
            place: Where.
            forward: Number of the pass.
            numbers: Anything whose repr tells different numbers apart.
        """
        self._seen[place][forward].add(repr(numbers))

    def changed(self) -> list[Place]:
        """Places whose numbers were not the same in every pass that reached them."""
        return [
            place
            for place, passes in self._seen.items()
            if len({frozenset(numbers) for numbers in passes.values()}) > 1
        ]
