"""The dispatch mode that sees every operation, and follows where values come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.utils._python_dispatch import TorchDispatchMode as _UntypedMode

from layercast.auditing.classification import Verdict, base_name, classify, tensors_in
from layercast.auditing.compiled import COMPILED, compiled_modules
from layercast.auditing.findings import Findings
from layercast.auditing.ledger import Ledger
from layercast.auditing.numbers import NumberWatch, Place
from layercast.auditing.operation_names import ARITHMETIC
from layercast.auditing.origin import ModuleStack, calling_line, inside_compiled_code

# These take the shape and dtype of their argument, or set it, without reading it.
_METADATA_ONLY = ("new_", "empty_like", "full_like", "ones_like", "zeros_like")
_OVERWRITING = frozenset({"copy", "fill", "zero"})


class Recorder:
    """Records what a model does.

    Attributes:
        findings: So far.
        looking: While the audit itself computes, which is not to be recorded.
    """

    def __init__(self, model: nn.Module) -> None:
        self.findings = Findings()
        self.looking = False
        self._model = model
        self._stack = ModuleStack(model)
        self._ledger = Ledger()
        self._numbers = NumberWatch()
        self._compiled = {self._stack.display(name) for name in compiled_modules(model)}
        for path in sorted(self._compiled):
            self._note_compiled(path, "")
        self._ledger.open(model)

    @contextmanager
    def recording(self, inputs: Iterable[Tensor]) -> Iterator[None]:
        """Record in this block.

        Args:
            inputs: Tensors made for it.
        """
        self._ledger.trust(inputs)
        try:
            with torch.no_grad(), self._stack.watching(self._look, self._look), _Mode(self):
                yield
        finally:
            self._ledger.forget_freed()

    def unread_parameters(self) -> list[str]:
        """Names of parameters that no recorded operation has read."""
        return [
            name for name, tensor in self._model.named_parameters()
            if not self._ledger.was_read(tensor)
        ]  # fmt: skip

    def close(self) -> Findings:
        """Look at what shows only at the end, and hand the findings over."""
        for place in self._numbers.changed():
            self.findings.uncover(
                place.operation,
                place.module,
                "its Python numbers change with the input: computed outside torch, or from the "
                "shape of the batch",
                source=place.source,
                remedy="keep such values in tensors",
            )
        for name in self._ledger.changed_large():
            module, _, parameter = name.rpartition(".")
            self.findings.trouble("pointer_write", self._stack.display(module), parameter)
        return self.findings

    def dispatch(self, operation: OpOverload, args: Any, kwargs: Any) -> Any:
        """Run one operation and take down what it did."""
        arguments = _by_name(operation, args, kwargs)
        module, source = self._stack.path, calling_line()
        if inside_compiled_code():
            self._note_compiled(module, source)
        name = base_name(operation)
        if name == "lift_fresh":
            self._lift(args[0], Place("torch.tensor", module, source))
        self._check(operation, name, arguments, module, source)
        verdict = classify(operation, arguments)
        self.findings.add(str(operation), module, verdict, source)
        self._note_numbers(Place(str(operation), module, source), name, arguments)
        result = operation(*args, **kwargs)
        self._record(operation, name, arguments, result, verdict)
        return result

    def dispatch_higher_order(self, operation: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator that takes functions, such as flex_attention; none is covered."""
        verdict = Verdict("uncovered", "an operator over functions, fused as its library likes")
        self.findings.add(operation.name(), self._stack.path, verdict, calling_line())
        result = operation(*args, **kwargs)
        for tensor in tensors_in(result):
            self._ledger.record(tensor)
        return result

    def _look(self, values: Any) -> None:
        """Check tensors where they pass from one module to another."""
        self.looking = True  # digests are torch operations, too
        try:
            for tensor in tensors_in(values):
                trouble = self._ledger.check(tensor)
                if trouble is not None:
                    self.findings.trouble(trouble, self._stack.path, self._stack.definition)
        finally:
            self.looking = False

    def _lift(self, tensor: Tensor, place: Place) -> None:
        """A tensor that torch has just made from Python values, or put around foreign memory."""
        if self._ledger.knows(tensor) or not tensor.untyped_storage().resizable():
            return
        self._ledger.record(tensor)
        if self._stack.inside:
            self._numbers.note(place, self._stack.passes, tensor.tolist())

    def _check(
        self,
        operation: OpOverload,
        name: str,
        arguments: dict[str, Any],
        module: str,
        source: str,
    ) -> None:
        if (operation.is_view and name != "lift_fresh") or name.startswith(_METADATA_ONLY):
            return
        for argument in operation._schema.arguments:
            written = argument.alias_info is not None and argument.alias_info.is_write
            overwritten = written and (argument.is_out or name in _OVERWRITING)
            for tensor in tensors_in(arguments.get(argument.name)):
                trouble = self._ledger.check(tensor, reads=not overwritten)
                if trouble is not None:
                    self.findings.trouble(trouble, module, source)

    def _record(
        self,
        operation: OpOverload,
        name: str,
        arguments: dict[str, Any],
        result: Any,
        verdict: Verdict,
    ) -> None:
        empty = name.startswith(("empty", "new_empty"))
        for tensor in tensors_in(result):
            if not self._ledger.knows(tensor):
                self._ledger.record(tensor, written=not empty)
        foreign = verdict.kind == "uncovered" and operation.namespace != "aten"
        for argument in operation._schema.arguments:
            # The schema of a foreign operation need not tell the truth.
            if foreign or (argument.alias_info is not None and argument.alias_info.is_write):
                for tensor in tensors_in(arguments.get(argument.name)):
                    self._ledger.record(tensor)

    def _note_numbers(self, place: Place, name: str, arguments: dict[str, Any]) -> None:
        if not self._stack.inside:
            return
        kinds = (int, float) if name in ARITHMETIC else (float,)
        numbers = [
            (key, value) for key, value in arguments.items()
            if isinstance(value, kinds) and not isinstance(value, bool)
        ]  # fmt: skip
        if numbers and any(tensor.is_floating_point() for tensor in tensors_in(arguments)):
            self._numbers.note(place, self._stack.passes, numbers)

    def _note_compiled(self, module: str, source: str) -> None:
        if source and any(module == p or module.startswith(f"{p}.") for p in self._compiled):
            return  # named already, by the compiled module itself
        self.findings.uncover(
            COMPILED,
            module,
            "a compiler may fuse and reorder its operations, so their bits are not those recorded",
            source=source,
            remedy="leave it uncompiled",
        )


# torch.utils has no annotations.
_TorchDispatchMode: Any = _UntypedMode


class _Mode(_TorchDispatchMode):  # type: ignore[misc]
    """Hands operations to a recorder, composite ones in their parts."""

    supports_higher_order_operators = True

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._recorder.looking:
            return func(*args, **kwargs)
        if isinstance(func, HigherOrderOperator):
            return self._recorder.dispatch_higher_order(func, args, kwargs)
        # Under inference mode composite operations arrive whole.
        if func._can_decompose():
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        return self._recorder.dispatch(func, args, kwargs)


def _by_name(operation: OpOverload, args: Any, kwargs: Any) -> dict[str, Any]:
    names = (argument.name for argument in operation._schema.arguments)
    return {**dict(zip(names, args, strict=False)), **kwargs}
