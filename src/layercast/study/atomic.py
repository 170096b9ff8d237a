"""Files that are complete or absent: write aside, fsync, rename, fsync the folder."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from layercast.errors import RecordError
from layercast.syncing import sync_folder

#: Temporary files are ``.{name}.{pid}.partial`` beside the file they will become.
PARTIAL_SUFFIX = ".partial"

_RESUME = "start the run again: finished batches are kept"


def write_atomically(
    path: Path, write: Callable[[BinaryIO], object], *, then: str = _RESUME
) -> None:
    """Make `path` hold what `write` writes, or leave it as it was.

    The temporary file lies in the same folder, so that the rename stays on one file system. The
    folder is synced too: without that a power cut may undo the rename.

    Args:
        path: The file to make or replace; its folder is made if need be.
        write: Called with the open temporary file.
        then: What the reader of an error is to do once its cause is mended.

    Raises:
        RecordError: the file cannot be written (no space, no permission, a folder of that name);
            nothing half written is left behind.
    """
    if os.path.isdir(path):  # unlike Path.is_dir, quiet about names that cannot be
        raise RecordError(
            f"write: `{path}` must be a file, got a folder of that name. Name a file in it, then "
            f"{then}."
        )
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
        sync_folder(path.parent)
    except OSError as error:
        raise RecordError(
            f"write: `{path}` must be writable, got {error.strerror or error}. "
            f"{remedy(error)}, then {then}."
        ) from error


def remedy(error: OSError) -> str:
    """Return what helps against a failed write."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return "Free space"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "Mend the permissions or name another place"
        case _:
            return "Name another place"


def is_partial(file_name: str, of: str) -> bool:
    """Say whether a file is what an interrupted write left.

    Args:
        file_name: Its name.
        of: Regular expression of the names of the files it would have become.
    """
    return re.fullmatch(rf"\.(?:{of})\.\d+{re.escape(PARTIAL_SUFFIX)}", file_name) is not None
