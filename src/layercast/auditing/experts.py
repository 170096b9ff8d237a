"""Sends tokens to every expert of a mixture, whatever its router would have chosen."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_CHOSEN = "top_k_index"


def expert_modules(model: nn.Module) -> list[Any]:
    """Modules of transformers' form, whose forward is given the experts chosen for each token."""
    return [
        module
        for module in model.modules()
        if hasattr(module, "num_experts") and _CHOSEN in _parameters(module)
    ]


@contextmanager
def every_expert_chosen(model: nn.Module) -> Iterator[None]:
    """Deal the tokens out to the experts in turn in this block.

    Args:
        model: Its expert modules are hooked, and left as they were.
    """

    def deal(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        place = _parameters(module).index(_CHOSEN)
        if _CHOSEN in kwargs:
            return args, {**kwargs, _CHOSEN: _dealt(kwargs[_CHOSEN], module.num_experts)}
        dealt = _dealt(args[place], module.num_experts)
        return (*args[:place], dealt, *args[place + 1 :]), kwargs

    handles = [
        module.register_forward_pre_hook(deal, with_kwargs=True)
        for module in expert_modules(model)
    ]  # fmt: skip
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _dealt(chosen: Tensor, experts: int) -> Tensor:
    turns = torch.arange(chosen.numel(), device=chosen.device, dtype=chosen.dtype)
    return (turns % experts).view(chosen.shape)


def _parameters(module: nn.Module) -> list[str]:
    return list(inspect.signature(module.forward).parameters)
