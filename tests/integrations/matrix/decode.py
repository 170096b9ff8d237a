"""Axis: single tokens after a left-padded prefill, in place of a forward pass."""

from __future__ import annotations

from forward_variants import SEQUENCES, padded_decode

from matrix.subject import Pairs, Subject

_GROUP = (0, 2, 3)


def pairs(subject: Subject) -> Pairs:
    """Three sequences from the prompt's end on."""
    got = padded_decode(subject.model, [SEQUENCES[i] for i in _GROUP], prompt=50)
    for i, logits in zip(_GROUP, got, strict=True):
        yield subject.expected[i][-len(logits) :], subject.log_softmax(logits)
