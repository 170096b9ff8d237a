"""Programs that try to do harm, each bounded, so that a sandbox that fails costs no machine.

Each comes with the reasons a grade may give for it: what stops it differs with the user the
sandbox runs as.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HostileAnswer:
    name: str
    source: str
    reasons: tuple[str, ...]
    reads: bool = False
