"""Digests of what an engine tells of each position, where it hands over no whole rows."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def digests_of(*told: NDArray[Any]) -> NDArray[np.uint64]:
    """BLAKE2b-64 of each position's entries in turn, by their bytes.

    Args:
        told: Arrays whose first axis is the position, shape (T, ...).

    Returns:
        Shape (T,).
    """
    digests = [
        hashlib.blake2b(b"".join(part[position].tobytes() for part in told), digest_size=8).digest()
        for position in range(len(told[0]))
    ]
    return np.array([int.from_bytes(digest, "little") for digest in digests], dtype=np.uint64)
