"""Makes what was written to a folder outlast a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk: without that a power cut may undo a rename in it.

    Args:
        folder: Whose entries were made, renamed or removed.

    Raises:
        OSError: It cannot be opened or synced.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
