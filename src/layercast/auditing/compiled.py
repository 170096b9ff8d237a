"""Submodules whose code is compiled, and so never runs as it was recorded."""

from __future__ import annotations

import torch
from torch import nn

#: The operation findings of compiled code are named by.
COMPILED = "torch.compile"


def compiled_modules(model: nn.Module) -> list[str]:
    """Names of the submodules that torch.compile or torch.jit has taken over.

    Functions that a forward calls are found while it runs; see `origin.inside_compiled_code`.

    Args:
        model: Any module.

    Returns:
        Names as in `named_modules`, outermost only.
    """
    found: list[str] = []
    for name, module in model.named_modules():
        if _is_compiled(module) and not any(
            not outer or name.startswith(f"{outer}.") for outer in found
        ):
            found.append(name)
    return found


def _is_compiled(module: nn.Module) -> bool:
    return (
        isinstance(module, torch._dynamo.OptimizedModule | torch.jit.ScriptModule)
        or getattr(module, "_compiled_call_impl", None) is not None
    )
