"""What every module with weights shares: the storage dtype is fixed when the weights are loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from layercast.errors import GuaranteeError


def stored_parameter(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> nn.Parameter:
    """An empty parameter in a storage dtype; inference only, so it never requires grad.

    Args:
        shape: Of the parameter.
        dtype: Storage dtype: bfloat16, float16 or float32.
        device: `meta` while a checkpoint is being read, so that nothing is allocated twice.

    Returns:
        The parameter, its memory not initialised.
    """
    return nn.Parameter(torch.empty(shape, dtype=dtype, device=device), requires_grad=False)


def optional_parameter(
    module: nn.Module,
    name: str,
    shape: tuple[int, ...],
    dtype: torch.dtype | None,
    device: torch.device | str,
) -> None:
    """Register a stored parameter, or None in its place.

    Args:
        module: Gets the parameter.
        name: Of the parameter.
        shape: Of the parameter.
        dtype: Storage dtype; None registers None.
        device: See `stored_parameter`.
    """
    stored = None if dtype is None else stored_parameter(shape, dtype, torch.device(device))
    module.register_parameter(name, stored)


def refuse_casts(module: nn.Module, fn: Callable[[Tensor], Tensor], *, recurse: bool) -> None:
    """Refuse a conversion that would change the dtype of a weight.

    Args:
        module: Whose weights are about to be converted.
        fn: What `nn.Module._apply` is to do to each.
        recurse: Look at the weights of its children too.

    Raises:
        GuaranteeError: `fn` changes the dtype of one.
    """
    for name, parameter in module.named_parameters(recurse=recurse):
        cast = fn(torch.empty(0, dtype=parameter.dtype, device=parameter.device)).dtype
        if cast is not parameter.dtype:
            raise GuaranteeError(
                f"{type(module).__name__}.to: `dtype` must stay the storage dtype of the "
                f"checkpoint, {parameter.dtype} for `{name}`, got {cast}. Arithmetic is "
                "float32 whatever the storage; to store in another dtype, load again with "
                "layercast.load(..., weight_dtype=...)."
            )


class StoredWeights(nn.Module):
    """A module whose weights refuse to change dtype.

    `module.to(torch.bfloat16)`, `.half()` and the like would round weights that
    the checkpoint stores more precisely; on a whole model they reach every
    module through `_apply`, so the refusal sits there.
    """

    # `forward` reads it directly: nn.Module.__getattr__ costs more than a small kernel.
    _parameters: dict[str, Any]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        refuse_casts(self, fn, recurse=False)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
