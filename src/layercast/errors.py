"""Errors of the package: each derives from `LayercastError` and from the standard type it refines.

Messages follow one form: *function: `argument` must ..., got .... Remedy.*
"""

from __future__ import annotations


class LayercastError(Exception):
    """Base of every error this package raises on purpose."""


class ShapeError(LayercastError, ValueError):
    """A tensor's shape or layout does not fit the operation."""


class DtypeError(LayercastError, TypeError):
    """A tensor's dtype is not one the operation accepts."""


class ValueRangeError(LayercastError, ValueError):
    """An argument lies outside the range the contract covers."""


class UnsupportedError(LayercastError, NotImplementedError):
    """Nothing in the contract covers what was asked for; never answered by a silent fallback."""


class BackendError(LayercastError, RuntimeError):
    """A kernel backend or instruction set is not available on this machine."""


class GuaranteeError(LayercastError, RuntimeError):
    """A model or a setting would void the bitwise guarantee."""


class CheckpointError(LayercastError, OSError):
    """A model's files are missing, unreadable or not of a supported form."""


class PlanError(LayercastError, ValueError):
    """A study plan is not valid."""


class RecordError(LayercastError, OSError):
    """Records or a run folder are missing, unreadable or do not belong together."""


class EndpointError(LayercastError, ConnectionError):
    """A server cannot be reached, refuses every request, or does not serve what was asked for."""


class EnvironmentSetupError(LayercastError, RuntimeError):
    """The machine lacks something that the command needs."""


class CoverageWarning(UserWarning):
    """Part of a model runs outside the contract, or nobody has shown that it does not."""


def first_line(error: BaseException) -> str:
    """What another library's error says, in a line; the error's name where it says nothing."""
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__
