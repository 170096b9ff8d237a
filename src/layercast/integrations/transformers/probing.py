"""Runs a stock module or function on numbers to see what it computes: a name is no proof."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Float32 sums of a few hundred terms err by far less, another formula by far more.
_AGREEMENT = 1e-4

GATE_SCALES = (1.0, 1e2, 1e4, 1e6)
"""Of the gate that networks are tried with: one that bounds it is one of another formula."""


def run(stock: Callable[..., Any], *arguments: Tensor) -> Any:
    """What a stock module or function answers.

    Args:
        stock: Whose parameters lie on the CPU.
        *arguments: What it is called with.

    Returns:
        Its result; None if it takes other arguments or other shapes, and so is not what was sought.
    """
    try:
        with torch.inference_mode():
            return stock(*arguments)
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError):
        return None


def agree(got: Any, expected: Tensor) -> bool:
    """Whether a result is the expected one but for roundings of float32.

    Args:
        got: Result of `run`, or one of several.
        expected: The formula in float64.

    Returns:
        True if it is a tensor of the same shape with values as near as they must be.
    """
    return (
        isinstance(got, Tensor)
        and got.shape == expected.shape
        and torch.allclose(got.double(), expected.double(), rtol=_AGREEMENT, atol=_AGREEMENT)
    )
