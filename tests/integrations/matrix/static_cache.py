"""Axis: a cache of fixed size, with empty slots, in place of one that grows."""

from __future__ import annotations

from forward_variants import SEQUENCES, in_chunks
from transformers import StaticCache

from matrix.subject import Pairs, Subject


def pairs(subject: Subject) -> Pairs:
    """As the axis `chunks`."""
    for size in (len(SEQUENCES[0]), 1, 7, 64):
        logits = in_chunks(subject.model, SEQUENCES[0], size, StaticCache)
        yield subject.expected[0], subject.log_softmax(logits)
