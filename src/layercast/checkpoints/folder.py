"""A folder that is complete or absent: written aside, synced, renamed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from layercast.errors import CheckpointError
from layercast.syncing import sync_folder


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out` that becomes `out` when the block ends well.

    Until then there is nothing at `out`, whatever ends the process. The temporary folder is
    locked while it is written, so that one that a killed process left is known for what it is,
    and removed by the next that writes to the same `out`.

    Args:
        out: Must not exist, or be an empty folder.

    Yields:
        The folder to write into.

    Raises:
        CheckpointError: `out` is taken, or cannot be written; nothing half written is left.
    """
    out = out.expanduser().absolute()
    require_free(out)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(out)
        partial.mkdir()
        try:
            with _locked(partial):
                yield partial
                _sync(partial)
                os.rename(partial, out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(out.parent)
    except OSError as error:
        if isinstance(error, CheckpointError):
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise CheckpointError(
            f"convert: `{out}` must be writable, got {error.strerror or error}{where}. Free space "
            "or mend the permissions, or name another folder; nothing half written is left."
        ) from error


def require_free(out: Path) -> None:
    """Refuse a place where something is already.

    Args:
        out: Must not exist, or be an empty folder.

    Raises:
        CheckpointError: It is taken.
    """
    out = out.expanduser()
    if out.is_dir() and not out.is_symlink() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        kind = "a folder with files in it" if out.is_dir() else "a file"
        raise CheckpointError(
            f"convert: `{out}` must be a new or an empty folder, got {kind}. Name another, or "
            "remove it first."
        )


def _remove_leftovers(out: Path) -> None:
    for path in out.parent.glob(".*.partial"):
        if re.fullmatch(rf"\.{re.escape(out.name)}\.\d+\.partial", path.name) and path.is_dir():
            with contextlib.suppress(BlockingIOError), _locked(path):
                shutil.rmtree(path)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which ends with the process.

    Raises:
        BlockingIOError: Another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
            continue
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)
