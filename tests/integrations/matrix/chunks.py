"""Axis: prefill whole, or in chunks through a cache that grows."""

from __future__ import annotations

from forward_variants import SEQUENCES, in_chunks

from matrix.subject import Pairs, Subject


def pairs(subject: Subject) -> Pairs:
    """A sequence longer than a block of keys, all at once and 1, 7 and 64 tokens at a time."""
    for size in (len(SEQUENCES[0]), 1, 7, 64):
        logits = in_chunks(subject.model, SEQUENCES[0], size)
        yield subject.expected[0], subject.log_softmax(logits)
