"""One runner a folder, and no new one while a worker of an old one may still write."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layercast.errors import RecordError
from layercast.study.atomic import remedy

#: Workers of a killed runner die with it; this is how long their end may take.
_GRACE_SECONDS = 10.0


@contextmanager
def lock_folder(folder: Path) -> Iterator[int]:
    """Hold the run folder's lock.

    The lock belongs to the open file, which workers inherit: it is free only once the runner
    *and* every worker it started are gone.

    Yields:
        The lock's file descriptor, for workers to inherit.

    Raises:
        RecordError: another runner works in the folder, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RecordError(
            f"study run: `{folder}` must be a folder that can be written, got "
            f"{error.strerror}. Name another with --out, or mend its permissions."
        ) from error
    try:
        _acquire(descriptor, folder)
        _sign(descriptor, folder)
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, folder: Path) -> None:
    deadline = time.monotonic() + _GRACE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            alive = holder.isdigit() and _is_alive(int(holder))
            if alive or time.monotonic() > deadline:
                raise RecordError(
                    f"study run: `{folder}` must not be in use, got a study at work there "
                    f"(process {holder or 'unknown'}). Wait for it, or name another folder."
                ) from error
            time.sleep(0.05)
        except OSError as error:
            raise RecordError(
                f"study run: `{folder}` must be on a file system with locks, got "
                f"{error.strerror}. Name a folder on a local disk with --out."
            ) from error


def _sign(descriptor: int, folder: Path) -> None:
    """Write into the lock who holds it."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except OSError as error:
        raise RecordError(
            f"study run: `{folder}` must be writable, got {error.strerror}. {remedy(error)}, "
            "then start the run again."
        ) from error


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A killed runner that its parent has not waited for still has a process id.
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state not in ("Z", "X")
