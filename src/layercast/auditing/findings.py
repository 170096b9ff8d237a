"""What an audit collects while a model runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from layercast.auditing.classification import Kind, Verdict
from layercast.auditing.ledger import Trouble


@dataclass(frozen=True)
class Uncovered:
    """Something in a model that the guarantee does not cover.

    Attributes:
        operation: What ran, by torch's name (`aten.mean.dim`), or in words where torch saw none.
        module: Path of the module it ran in, as `named_modules` has it; the class of the model
            for its own forward, "(decoding)" for what `generate` does between forwards.
        reason: Why its bits are not fixed.
        source: File and line it was called from; empty where there is none to name.
        remedy: What to do about it; empty where nothing short can be said.
        calls: How often it ran.
    """

    operation: str
    module: str
    reason: str = ""
    source: str = ""
    remedy: str = ""
    calls: int = 1

    def __str__(self) -> str:
        where = f" ({self.source})" if self.source else ""
        remedy = f" Instead: {self.remedy}." if self.remedy else ""
        return f"{self.operation} in {self.module}{where}: {self.reason}.{remedy}"


@dataclass(frozen=True)
class Rounding:
    """Activations that were rounded to 16 bits.

    Attributes:
        operation: The cast, by torch's name.
        module: Where it ran; see `Uncovered`.
        what: From and to which dtype.
        source: File and line it was called from.
        calls: How often it ran.
    """

    operation: str
    module: str
    what: str
    source: str = ""
    calls: int = 1


_TROUBLES: dict[Trouble, tuple[str, str]] = {
    "foreign": (
        "torch.from_numpy",
        "its values lie in memory that torch did not allocate (NumPy, DLPack or a foreign "
        "extension)",
    ),
    "unrecorded": (
        "(unrecorded tensor)",
        "no recorded operation made it (another thread, a foreign extension or compiled code)",
    ),
    "shared_write": (
        "write through Tensor.numpy",
        "its values changed outside torch, through memory shared with NumPy or the like",
    ),
    "pointer_write": (
        "write through a raw pointer",
        "its values changed outside torch (ctypes or a foreign extension)",
    ),
    "unwritten": (
        "torch.empty",
        "its memory is read though no recorded operation has written it: uninitialised, or "
        "written outside torch (NumPy, ctypes or a foreign extension)",
    ),
}


@dataclass
class Findings:
    """Counts by operation and module, the first source of each kept."""

    operations: Counter[tuple[str, Kind]] = field(default_factory=Counter)
    _uncovered: dict[tuple[str, str], Uncovered] = field(default_factory=dict)
    _roundings: dict[tuple[str, str], Rounding] = field(default_factory=dict)
    _calls: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, operation: str, module: str, verdict: Verdict, source: str) -> None:
        """Note an operation that was recorded."""
        self.operations[operation, verdict.kind] += 1
        key = (operation, module)
        if verdict.kind == "uncovered":
            self.uncover(operation, module, verdict.reason, source=source, remedy=verdict.remedy)
        elif verdict.kind == "rounding":
            self._roundings.setdefault(key, Rounding(operation, module, verdict.reason, source))
            self._calls[key] += 1

    def uncover(
        self, operation: str, module: str, reason: str, *, source: str = "", remedy: str = ""
    ) -> None:
        """Note something uncovered."""
        key = (operation, module)
        if key not in self._uncovered:
            self._uncovered[key] = Uncovered(operation, module, reason, source, remedy)
        self._calls[key] += 1

    def trouble(self, trouble: Trouble, module: str, source: str) -> None:
        """Note values whose origin nobody recorded."""
        operation, reason = _TROUBLES[trouble]
        remedy = "compute it by operations of torch or layercast.ops"
        self.uncover(operation, module, reason, source=source, remedy=remedy)

    def uncovered(self) -> list[Uncovered]:
        """All of them, in the order in which they were first met."""
        return [replace(entry, calls=self._calls[key]) for key, entry in self._uncovered.items()]

    def roundings(self) -> list[Rounding]:
        """All of them, in the order in which they were first met."""
        return [replace(entry, calls=self._calls[key]) for key, entry in self._roundings.items()]
