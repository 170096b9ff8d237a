"""Weights read from memory, as a model's are: copies enough that none is still in a cache."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

_CPU_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}

#: Taken for the last-level cache where the system does not say.
UNKNOWN_CACHE_BYTES = 64 * 2**20

#: Bytes read between two uses of a copy, as a multiple of the last-level cache: replacement is
#: not by age alone, so a cache's own size is not enough.
PAST_CACHE = 2


def caches(folder: Path = _CPU_CACHES) -> dict[str, int]:
    """Return the bytes of the first core's data caches, by level ("L1", "L2", "L3").

    Args:
        folder: Where the kernel describes them.
    """
    found: dict[str, int] = {}
    for index in sorted(folder.glob("index*")):
        try:
            kind = (index / "type").read_text().strip()
            level = (index / "level").read_text().strip()
            size = re.fullmatch(r"(\d+)([KMG]?)", (index / "size").read_text().strip())
        except OSError:
            continue
        if kind != "Instruction" and size is not None:
            found[f"L{level}"] = int(size[1]) * _UNITS[size[2]]
    return found


def last_level_cache_bytes() -> int:
    """Return the size of the largest cache; `UNKNOWN_CACHE_BYTES` where the system has no word."""
    return max(caches().values(), default=UNKNOWN_CACHE_BYTES)


def available_memory_bytes() -> int:
    """Return the memory that can be had without swapping."""
    try:
        match = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        match = None
    if match is not None:
        return int(match[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


class Rotation:
    """Equal tensors in different memory, given out in turn.

    Variants that read the same storage share one rotation: each call gets the copy that was read
    longest ago.
    """

    def __init__(self, groups: Sequence[tuple[Tensor, ...]]) -> None:
        self._groups = groups
        self._next = 0

    @property
    def copies(self) -> int:
        """How many there are."""
        return len(self._groups)

    @property
    def total_bytes(self) -> int:
        """Bytes read before a copy comes again."""
        return sum(tensor.nbytes for group in self._groups for tensor in group)

    def next(self) -> tuple[Tensor, ...]:
        """Return the copy that was given out longest ago."""
        group = self._groups[self._next]
        self._next = (self._next + 1) % len(self._groups)
        return group


def rotate(tensors: tuple[Tensor, ...], *, past_bytes: int, limit_bytes: int) -> Rotation:
    """Copy tensors that are read together until all copies hold `past_bytes`.

    Args:
        tensors: The first copy.
        past_bytes: What lies between two uses of a copy.
        limit_bytes: The memory all copies may take; one is always kept.

    Returns:
        The copies. Fewer than asked for where the limit says so: `total_bytes` tells.
    """
    one = max(1, sum(tensor.nbytes for tensor in tensors))
    wanted = min(-(-past_bytes // one), limit_bytes // one)
    copies = [tuple(torch.clone(t) for t in tensors) for _ in range(max(0, wanted - 1))]
    return Rotation([tensors, *copies])
