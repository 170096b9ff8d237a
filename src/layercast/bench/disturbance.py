"""How much of the machine others took while something was timed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

QUIET_SHARE = 0.1
"""Share of all cores above which others disturb: accounts are kept in hundredths of a second, so
that less cannot be told from their rounding over a short round."""


@dataclass(frozen=True)
class CoreSeconds:
    """Core seconds: of everything that ran, and of this process and its children."""

    all: float
    own: float


def core_seconds() -> CoreSeconds | None:
    """Read the system's accounts; None where it keeps none."""
    try:
        line = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return None
    # user nice system idle iowait irq softirq steal: idle and iowait are nobody's.
    ticks = [int(field) for field in line.split()[1:9]]
    busy = sum(ticks) - ticks[3] - ticks[4]
    spent = os.times()
    ended = spent.user + spent.system + spent.children_user + spent.children_system
    per_second = os.sysconf("SC_CLK_TCK")
    return CoreSeconds(busy / per_second, ended + _children_ticks() / per_second)


def _children_ticks() -> int:
    """Ticks of this process's children that still live (those that ended are in its own times)."""
    ticks, parent = 0, str(os.getpid())
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may hold anything; after it: state, parent, ..., the
            # ticks spent as user and as system.
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if fields[1] == parent:
            ticks += int(fields[11]) + int(fields[12])
    return ticks


class LoadMeter:
    """Meters what others take, from its making or last reading on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._before = core_seconds()

    def read(self) -> float | None:
        """Return the share of all cores that others took since; None where it is not known."""
        now, time_now = core_seconds(), time.monotonic()
        elapsed, before = time_now - self._began, self._before
        self._began, self._before = time_now, now
        if now is None or before is None or elapsed <= 0:
            return None
        taken = (now.all - before.all) - (now.own - before.own)
        return max(0.0, taken / (elapsed * (os.cpu_count() or 1)))

    def disturbed(self) -> bool:
        """Return whether others took more than `QUIET_SHARE` since."""
        share = self.read()
        return share is not None and share > QUIET_SHARE
