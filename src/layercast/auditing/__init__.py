"""Which operations of a model the bitwise guarantee covers, found out by running it."""

from layercast.auditing.audit import audit, guarantee, require_bitwise
from layercast.auditing.findings import Rounding, Uncovered
from layercast.auditing.report import AuditReport, Exercise, Guarantee, OperationCount

__all__ = [
    "AuditReport",
    "Exercise",
    "Guarantee",
    "OperationCount",
    "Rounding",
    "Uncovered",
    "audit",
    "guarantee",
    "require_bitwise",
]
