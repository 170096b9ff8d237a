"""Which of our activations a stock one is: transformers writes some functions in several ways."""

from __future__ import annotations

from torch import nn
from transformers.activations import (
    GELUActivation,
    GELUTanh,
    NewGELUActivation,
    SiLUActivation,
)

from layercast import modules

_OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.SiLU: modules.SiLU,
    SiLUActivation: modules.SiLU,
    GELUActivation: modules.GELU,
    GELUTanh: modules.GELUTanh,
    NewGELUActivation: modules.GELUTanh,
    nn.Tanh: modules.Tanh,
}


def activation_of(module: nn.Module | None) -> nn.Module | None:
    """Our activation that computes the function of a stock one.

    Args:
        module: Any, or None.

    Returns:
        The activation; None if the module is none of those known.
    """
    ours = _OURS.get(type(module))  # type: ignore[arg-type]
    return None if ours is None else ours()
