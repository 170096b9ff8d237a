"""Weights in vLLM's layers, kept in the dtype the checkpoint stores them in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from vllm.model_executor.utils import set_weight_attrs

from layercast.errors import DtypeError

_STORED = (torch.bfloat16, torch.float16, torch.float32)


def create_stored_weight(
    layer: nn.Module,
    rows: int,
    columns: int,
    storage_dtype: torch.dtype | None,
    attributes: dict[str, Any],
) -> None:
    """Give a layer a weight whose dtype is settled when it is loaded.

    Args:
        layer: Gets the parameter `weight`, shape (rows, columns).
        rows: Outputs, N.
        columns: Inputs, K.
        storage_dtype: What to store in, rounding to nearest even where it is narrower; None
            stores what the checkpoint has. Where several of its tensors go into one weight and
            differ, the weight takes the narrowest dtype that holds them all exactly.
        attributes: Of the parameter, `weight_loader` among them.
    """
    weight = nn.Parameter(
        torch.empty(rows, columns, dtype=storage_dtype or torch.bfloat16), requires_grad=False
    )
    weight.layercast_holds = None  # type: ignore[attr-defined]
    loader = attributes.pop("weight_loader")
    set_weight_attrs(
        weight,
        {
            "input_dim": 1,
            "output_dim": 0,
            "weight_loader": _storing(loader, storage_dtype),
            **attributes,
        },
    )
    layer.register_parameter("weight", weight)


def _storing(load: Callable[..., Any], storage_dtype: torch.dtype | None) -> Callable[..., Any]:
    """The loader of vLLM, after the parameter was given a dtype that holds what is loaded."""

    def store(param: nn.Parameter, loaded: Tensor, *args: Any, **kwargs: Any) -> Any:
        if loaded.dtype not in _STORED:
            raise DtypeError(
                "layercast: weights must be stored in bfloat16, float16 or float32, got "
                f"{loaded.dtype}. Use the checkpoint that this one was quantized from."
            )
        if storage_dtype is None:
            _widen(param, loaded.dtype)
        else:
            param.layercast_holds = storage_dtype  # type: ignore[attr-defined]
        return load(param, loaded, *args, **kwargs)

    return store


def never_loaded(weight: Tensor) -> bool:
    """Whether a weight was made by `create_stored_weight` and then not filled by its loader.

    Its dtype was not settled: whoever wrote into it may have rounded.

    Args:
        weight: Of a layer.
    """
    return getattr(weight, "layercast_holds", weight.dtype) is None


def _widen(param: Any, loaded: torch.dtype) -> None:
    so_far = param.layercast_holds
    holds = loaded if so_far is None else torch.promote_types(so_far, loaded)
    if param.data.dtype is not holds:
        param.data = (
            torch.empty_like(param.data, dtype=holds) if so_far is None else param.data.to(holds)
        )
    param.layercast_holds = holds


def narrowed(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A float32 weight in the dtype it was read from, if that loses nothing.

    Args:
        weight: Float32.
        dtype: The checkpoint's.

    Returns:
        The weight in `dtype` where it holds every value exactly, else as it is.
    """
    stored = weight.to(dtype)
    return stored if torch.equal(stored.to(weight.dtype), weight) else weight
