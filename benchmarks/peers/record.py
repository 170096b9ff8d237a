"""The record of a comparison: parts that later runs replace one by one, each with its context."""

from __future__ import annotations

import hashlib
import json

from layercast.bench.records import read, write
from peers.engines import OURS

SCHEMA_VERSION = 1
SPEED, DIVERGENCE = "speed", "divergence"


def measured(entry):
    """Return the names of the engines an entry has results of, layercast aside."""
    return set(entry["engines"]) - {OURS}


def case_of(entry):
    """Return what is measured anew by an entry of the same kind."""
    if entry["part"] == DIVERGENCE:  # an engine an entry, with none beside it
        return [DIVERGENCE, *entry["engines"]]
    return [entry["part"], entry["model"], entry["rows"]]


def merge(before, context, entries):
    """Return a file's contents: what was measured anew replaces what there was of an engine.

    Args:
        before: Contents, or None.
        context: Circumstances of the new entries.
        entries: The new ones: `part`, `engines` (name to results) and what makes the case.
    """
    key = hashlib.sha256(json.dumps(context, sort_keys=True).encode()).hexdigest()[:12]
    kept = [] if before is None else before["measurements"]
    for anew in entries:
        kept = [entry for entry in (_without(entry, anew) for entry in kept) if entry]
    entries = [*kept, *({"context": key, **entry} for entry in entries)]
    contexts = ({} if before is None else before["contexts"]) | {key: context}
    used = {entry["context"] for entry in entries}
    return {
        "schema_version": SCHEMA_VERSION,
        "contexts": {name: contexts[name] for name in contexts if name in used},
        "measurements": entries,
    }


def _without(entry, anew):
    """Leave out an old entry's engines that were measured anew; None where no rival is left."""
    if case_of(entry) != case_of(anew):
        return entry
    names = measured(entry) - measured(anew)
    left = {name: found for name, found in entry["engines"].items() if name in {OURS, *names}}
    return {**entry, "engines": left} if names else None


class PeerRecord:
    """A file that is whole after each entry."""

    def __init__(self, path, context):
        self.path = path
        self._context = context
        self._before = read(path)
        self._entries = []

    def add(self, entry):
        """Write the file with one entry more."""
        self._entries.append(entry)
        write(self.path, merge(self._before, self._context, self._entries))
