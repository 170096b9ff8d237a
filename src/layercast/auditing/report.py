"""What an audit says."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from layercast.auditing.classification import Kind
from layercast.auditing.findings import Rounding, Uncovered

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Exercise:
    """One way in which the model was run.

    Attributes:
        name: "prefill", "decode", "rope switch", "padded batch", "experts" or "decoding".
        detail: With what: tokens, windows passed, method.
        refused: What the model said where it refused to run so; empty where it ran.
        failed: The error where it broke instead; empty where it ran.
    """

    name: str
    detail: str
    refused: str = ""
    failed: str = ""

    @property
    def runs(self) -> bool:
        """Whether the model ran so."""
        return not (self.refused or self.failed)


@dataclass(frozen=True)
class Guarantee:
    """One promise, in the words that docs/audit.md defines.

    Attributes:
        word: Such as "batch invariant".
        holds: Whether the audit supports it for this model.
        reason: Why, or why not.
    """

    word: str
    holds: bool
    reason: str


@dataclass(frozen=True)
class OperationCount:
    """How often an operation ran, and how it was sorted."""

    operation: str
    kind: Kind
    calls: int


@dataclass(frozen=True)
class AuditReport:
    """Which operations of a model the bitwise guarantee covers, and which it does not.

    Attributes:
        model: What was audited.
        uncovered: Operation and module of everything that is not covered; empty if covered.
        roundings: Casts of activations to 16 bits. They are correctly rounded, so the bits stay a
            function of the sequence alone, but they are not those of float32 throughout.
        exercised: How the model was run.
        guarantees: The promises, each with whether it holds.
        operations: Everything that ran.
        left_stock: Modules that the configuration leaves as they are.
        notes: What a reader should know beside the findings.
        versions: Of layercast, its numerics, torch and transformers; and the instruction set.
    """

    model: str
    uncovered: list[Uncovered]
    roundings: list[Rounding]
    exercised: list[Exercise]
    guarantees: list[Guarantee]
    operations: list[OperationCount]
    left_stock: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def covered(self) -> bool:
        """Whether every operation that ran is ours or exact by IEEE 754."""
        return not self.uncovered

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with a `schema_version`."""
        return {"schema_version": SCHEMA_VERSION, "covered": self.covered, **asdict(self)}

    def __str__(self) -> str:
        from layercast.auditing.presentation import as_text

        return as_text(self)

    def __rich__(self) -> Any:
        from layercast.auditing.presentation import as_renderable

        return as_renderable(self)
