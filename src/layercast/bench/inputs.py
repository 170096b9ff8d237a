"""Random inputs, and which of many rows a slow check looks at."""

from __future__ import annotations

import torch
from torch import Tensor

SEED = 20250609


def generator() -> torch.Generator:
    """Return a generator that gives every run the same inputs."""
    return torch.Generator().manual_seed(SEED)


def spread(length: int, count: int) -> Tensor:
    """Return up to `count` indices of 0..length: both ends, the rest evenly between.

    Args:
        length: At least 1.
        count: At least 2.
    """
    if length <= count:
        return torch.arange(length)
    ends = count // 3
    step = (length - 2 * ends) / (count - 2 * ends)
    middle = [ends + int(step * index) for index in range(count - 2 * ends)]
    return torch.tensor([*range(ends), *middle, *range(length - ends, length)])
