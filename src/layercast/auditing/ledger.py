"""Where every tensor's bytes come from: a recorded operation, from before the run, or elsewhere.

NumPy, ctypes and foreign extensions write through raw pointers, past the dispatcher and past
torch's version counters. So the ledger digests a storage whenever a recorded operation has
written it and looks again before it is read: bytes that changed in between were computed by
something that nobody recorded.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.multiprocessing import reductions

from layercast.auditing.classification import is_plain

#: Storages up to here are digested at every use; larger ones that were there before the run only
#: at its ends.
WATCHED_BYTES = 2**20

# torch.multiprocessing has no annotations.
_StorageWeakRef: Any = reductions.StorageWeakRef

Trouble = Literal["foreign", "unrecorded", "shared_write", "pointer_write", "unwritten"]


class Ledger:
    """Digests of every storage that was seen."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._large: list[tuple[str, Tensor, int]] = []
        self._read: set[int] = set()

    def open(self, model: nn.Module) -> None:
        """Take down what exists before the run.

        Args:
            model: Its parameters, buffers and plain tensor attributes are digested now; all other
                live tensors of the process when they are first read.
        """
        for name, tensor in _tensors_of(model):
            storage = _storage(tensor)
            if storage is None:
                continue
            if storage.nbytes() > WATCHED_BYTES:
                if storage._cdata not in self._entries:
                    self._large.append((name, tensor, digest(storage)))
                self._enter(storage, None, watched=False)
            else:
                self._enter(storage, digest(storage))
        self.trust(_live_tensors())

    def trust(self, tensors: Iterable[Tensor]) -> None:
        """Take tensors that are new here for what they hold when they are first read."""
        for tensor in tensors:
            storage = _storage(tensor)
            if storage is not None and self._find(storage) is None:
                self._enter(storage, None)

    def check(self, tensor: Tensor, *, reads: bool = True) -> Trouble | None:
        """Look at a tensor before it is used.

        Args:
            tensor: An argument of an operation, or what a module returns.
            reads: Whether its values are read; False for a target that is only written.

        Returns:
            None where all is recorded; "foreign": the storage is not torch's own; "unrecorded": it
            is, but no recorded operation made it;
            "shared_write": it changed unrecorded, and NumPy or the like shares its memory;
            "pointer_write": it changed unrecorded otherwise; "unwritten": nothing was ever written
            to it. A storage in trouble is reported once.
        """
        storage = _storage(tensor)
        if storage is None:
            return None
        entry = self._find(storage)
        if reads:
            self._read.add(storage._cdata)
        if entry is None:
            self._enter(storage, digest(storage))
            return "unrecorded" if storage.resizable() else "foreign"
        if not entry.watched:
            return None
        now = digest(storage)
        if entry.digest is None:
            entry.digest = now
        if now != entry.digest:
            entry.digest, entry.written = now, True
            return "pointer_write" if storage.resizable() else "shared_write"
        if not entry.written and reads:
            entry.written = True
            return "unwritten"
        return None

    def record(self, tensor: Tensor, *, written: bool = True) -> None:
        """Take down what an operation has just put into a tensor.

        Args:
            tensor: Its output, or an argument that it wrote to.
            written: False for the memory of `empty`, which holds nothing yet.
        """
        storage = _storage(tensor)
        if storage is None:
            return
        entry = self._find(storage)
        if entry is None:
            self._enter(storage, digest(storage), written=written)
        elif entry.watched and written:
            entry.digest, entry.written = digest(storage), True

    def knows(self, tensor: Tensor) -> bool:
        """Whether the tensor's storage was seen before."""
        storage = _storage(tensor)
        return storage is None or self._find(storage) is not None

    def was_read(self, tensor: Tensor) -> bool:
        """Whether a recorded operation has read the tensor's storage."""
        storage = _storage(tensor)
        return storage is None or storage._cdata in self._read

    def changed_large(self) -> list[str]:
        """Names of large parameters and buffers that are no longer what they were."""
        return [
            name
            for name, tensor, before in self._large
            if digest(tensor.untyped_storage()) != before
        ]

    def forget_freed(self) -> None:
        """Drop storages that are gone; called between passes."""
        freed = [key for key, entry in self._entries.items() if entry.reference.expired()]
        for key in freed:
            del self._entries[key]

    def _find(self, storage: torch.UntypedStorage) -> _Entry | None:
        return self._entries.get(storage._cdata)

    def _enter(
        self,
        storage: torch.UntypedStorage,
        value: int | None,
        *,
        written: bool = True,
        watched: bool = True,
    ) -> None:
        if storage._cdata not in self._entries:
            self._entries[storage._cdata] = _Entry(storage, value, written, watched)


class _Entry:
    """A storage; the weak reference keeps its address from being used again."""

    __slots__ = ("digest", "reference", "watched", "written")

    def __init__(
        self, storage: torch.UntypedStorage, value: int | None, written: bool, watched: bool
    ) -> None:
        self.reference = _StorageWeakRef(storage)
        self.digest = value
        self.written = written
        self.watched = watched


def digest(storage: torch.UntypedStorage) -> int:
    """A number that changes with the bytes of a storage.

    Args:
        storage: On any device that can compute.

    Returns:
        Python's hash of the bytes up to `WATCHED_BYTES`; beyond, the sum of the 64-bit words,
        which is quick, and blind only to what moves whole words about.
    """
    size = storage.nbytes()
    if size == 0:
        return 0
    words = size // 8 * 8 if size > WATCHED_BYTES else 0
    tail = size - words
    if storage.device.type == "cpu":
        # Not through NumPy, which would mark the storage as shared.
        rest = hash(ctypes.string_at(storage.data_ptr() + words, tail))
    else:
        rest = hash(bytes(_as_bytes(storage)[words:].cpu().numpy()))
    return rest + (int(_as_bytes(storage)[:words].view(torch.int64).sum()) if words else 0)


def _as_bytes(storage: torch.UntypedStorage) -> Tensor:
    empty = torch.empty(0, dtype=torch.uint8, device=storage.device)
    return empty.set_(storage)


def _storage(tensor: Tensor) -> torch.UntypedStorage | None:
    if not is_plain(tensor) or tensor.device.type == "meta" or tensor.numel() == 0:
        return None
    storage = tensor.untyped_storage()
    return storage if storage.data_ptr() else None


def _tensors_of(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                yield f"{path}.{name}", value


def _live_tensors() -> list[Tensor]:
    return [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
