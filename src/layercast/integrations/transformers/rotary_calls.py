"""Attention modules that rotate queries and keys by `ops.rotary`, in a forward of the model's own.

The function that rotates is a global of the model's source file, not a module that could be
swapped. Each attention class gets a subclass whose forward is the same code, its decorators too,
with that one global exchanged; a stock model of the class keeps the stock function. The other
globals are those of the moment: what is put into the source file later is not seen.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from layercast import ops
from layercast.integrations.transformers.probing import run

_ROTATION = "apply_rotary_pos_emb"
_Rotation = Callable[..., tuple[Tensor, Tensor]]


def rotate_by_ours(module: nn.Module) -> None:
    """Let an attention module call `ops.rotary`, if it calls a function that gives its bits.

    Args:
        module: Any; changed in place, only its class.
    """
    cls: Any = type(module)
    forward = inspect.unwrap(cls.forward)
    if not isinstance(forward, FunctionType) or _ROTATION not in forward.__code__.co_names:
        return
    stock = forward.__globals__.get(_ROTATION)
    if stock is not None and _gives_our_bits(stock):
        module.__class__ = _rotating(cls, cls.forward, stock)


@functools.cache
def _rotating(cls: Any, forward: Any, stock: _Rotation) -> Any:
    own = _exchanged(forward, _ours(stock))
    if own is None:
        return cls
    return type(
        cls.__name__,
        (cls,),
        {
            "__module__": cls.__module__,
            "__qualname__": cls.__qualname__,
            "__doc__": cls.__doc__,
            "__reduce_ex__": _reduced,
            "_stock_class": cls,
            "forward": own,
        },
    )


def _exchanged(function: Any, rotation: _Rotation) -> Any:
    """A copy that calls `rotation`, its decorators copied around it.

    None where a decorator holds what it decorates elsewhere than in its closure.
    """
    if not isinstance(function, FunctionType):
        return None
    space, cells = function.__globals__, function.__closure__ or ()
    inner = function.__dict__.get("__wrapped__")
    own_inner = None
    if inner is None:
        space = {**space, _ROTATION: rotation}
    else:
        own_inner = _exchanged(inner, rotation)
        held = [_content(cell) is inner for cell in cells]
        if own_inner is None or not any(held):
            return None
        cells = tuple(
            CellType(own_inner) if holds else cell for cell, holds in zip(cells, held, strict=True)
        )
    own: Any = FunctionType(
        function.__code__, space, function.__name__, function.__defaults__, tuple(cells)
    )
    own.__kwdefaults__ = function.__kwdefaults__
    functools.update_wrapper(own, function)
    if own_inner is None:
        del own.__wrapped__
    else:
        own.__wrapped__ = own_inner
    return own


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # empty as yet


def _ours(stock: _Rotation) -> _Rotation:
    def rotated(*tensors: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        if options or len(tensors) != 4 or tensors[0].shape[2] != tensors[1].shape[2]:
            return stock(*tensors, **options)
        q, k, cos, sin = tensors
        if cos.shape[0] != q.shape[0]:  # positions that all rows of a batch share
            cos, sin = (table.expand(q.shape[0], -1, -1) for table in (cos, sin))
        return ops.rotary(q, k, cos, sin)

    return rotated


@functools.cache
def _gives_our_bits(stock: _Rotation) -> bool:
    """Whether it rotates halves of a head against each other, some or all of its channels."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")

    for channels in (16, 8):
        q, k = random(2, 4, 3, 16), random(2, 2, 3, 16)
        cos, sin = (random(2, 3, channels // 2).repeat(1, 1, 2) for _ in range(2))
        got = run(stock, q, k, cos, sin)
        if got is None and channels < 16:
            continue  # a function for whole heads alone
        expected = ops.rotary(q, k, cos, sin)
        if not (isinstance(got, tuple) and len(got) == 2 and all(map(torch.equal, got, expected))):
            return False
    return True


def _reduced(self: Any, protocol: Any) -> tuple[Any, ...]:
    # The class is made at run time, so pickle cannot find it by name.
    return (_rebuild, (self._stock_class,), *self._stock_class.__reduce_ex__(self, protocol)[2:])


def _rebuild(cls: Any) -> nn.Module:
    module: nn.Module = cls.__new__(cls)
    rotate_by_ours(module)
    return module
