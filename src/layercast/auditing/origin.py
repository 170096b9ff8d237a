"""Which module and which line of code an operation came from."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)
_DYNAMO = str(Path(_TORCH, "_dynamo", "eval_frame.py"))
_COMPILED_ENTRY = "compile_wrapper"

#: In place of a module's path for what `generate` does between forwards.
DECODING = "(decoding)"


class ModuleStack:
    """The modules whose forward is running, outermost first.

    Attributes:
        passes: How many times a module was entered from outside of any.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._names = {id(part): name for name, part in reversed(list(model.named_modules()))}
        self._running: list[nn.Module] = []
        self.passes = 0

    @contextmanager
    def watching(
        self, on_enter: Callable[[Any], None], on_exit: Callable[[Any], None]
    ) -> Iterator[None]:
        """Follow every call of a module in this block.

        Args:
            on_enter: Called with the arguments of a module while its caller is innermost.
            on_exit: Called with what a module returns while it is innermost itself.
        """

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            on_enter((args, kwargs))
            self.passes += not self._running
            self._running.append(module)

        def leave(module: nn.Module, args: Any, result: Any) -> None:
            on_exit(result)
            # One that raised below this one may have left without a call.
            while self._running and self._running.pop() is not module:
                pass

        handles: list[RemovableHandle] = []
        try:
            for module in self._model.modules():
                if not isinstance(module, torch.jit.ScriptModule):
                    handles += (
                        module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True),
                        module.register_forward_hook(leave, always_call=True),
                    )
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._running.clear()

    @property
    def inside(self) -> bool:
        """Whether any module's forward is running."""
        return bool(self._running)

    @property
    def path(self) -> str:
        """Of the innermost module that belongs to the model; `DECODING` outside of all."""
        if not self._running:
            return DECODING
        return self.display(self._names[id(self._running[-1])])

    @property
    def definition(self) -> str:
        """File and line where the innermost module's forward is written."""
        forward = type(self._running[-1]).forward if self._running else None
        code = getattr(inspect.unwrap(forward), "__code__", None) if forward else None
        return f"{_shortened(code.co_filename)}:{code.co_firstlineno}" if code else ""

    def display(self, name: str) -> str:
        """A module's name as findings show it: the model itself by its class."""
        name = name.removesuffix("._orig_mod").replace("._orig_mod.", ".")
        name = name.removeprefix("_orig_mod.")
        return name if name and name != "_orig_mod" else root_name(self._model)


def root_name(model: nn.Module) -> str:
    """What findings call the model itself: its class, that of the module inside if compiled."""
    return type(getattr(model, "_orig_mod", model)).__name__


def calling_line() -> str:
    """File and line of the innermost code outside of torch and of the audit, as "file:line"."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        between = frame.f_code.co_name == "__torch_function__"  # a mode that passed the call on
        if not between and not file.startswith((_TORCH, _HERE, "<frozen", "<eval_with_key")):
            return f"{_shortened(file)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def inside_compiled_code() -> bool:
    """Whether torch.compile would have had this call, were it not for the audit.

    While a dispatch mode is active dynamo leaves code as it is, but its entry
    stays on the stack, with `torch.compiler.disable` below it where that applies.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == _DYNAMO:
            if frame.f_code.co_name == _COMPILED_ENTRY:
                return True
            if frame.f_code.co_name == "_fn" and not _is_own_wrapper(frame):
                return False
        frame = frame.f_back
    return False


def _is_own_wrapper(frame: FrameType) -> bool:
    """Whether a `disable` is the one torch puts around every dispatch mode."""
    fn = frame.f_locals.get("fn")
    return getattr(fn, "__name__", "") in ("__torch_dispatch__", "_wrapped_torch_dispatch")


def _shortened(file: str) -> str:
    path = Path(file)
    for marker in ("site-packages", "dist-packages", "src"):
        if marker in path.parts:
            parts = path.parts
            return "/".join(parts[len(parts) - parts[::-1].index(marker) :])
    return path.name
