"""Files that are complete or absent: write aside, fsync, rename, fsync the folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from layercast.errors import RecordError

#: Temporary files are ``.{name}{pid}.partial`` beside the file they will become.
PARTIAL_SUFFIX = ".partial"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Make `path` hold what `write` writes, or leave it as it was.

    The temporary file lies in the same folder, so that the rename stays on one file system. The
    folder is synced too: without that a power cut may undo the rename.

    Args:
        path: The file to make or replace; its folder is made if need be.
        write: Called with the open temporary file.

    Raises:
        RecordError: the file cannot be written (no space, no permission); nothing half written
            is left behind.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise RecordError(
            f"write: `{path}` must be writable, got {error.strerror or error}. Free space or mend "
            "the permissions, then start the run again: finished batches are kept."
        ) from error


def remove_partial_files(folder: Path) -> int:
    """Delete what interrupted writes left under `folder`; return how many files that was.

    Only to be called while no worker writes there.
    """
    leftovers = list(folder.rglob(f".*{PARTIAL_SUFFIX}"))
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return len(leftovers)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
