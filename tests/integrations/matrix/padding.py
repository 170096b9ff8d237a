"""Axis: padding left and right in a forward pass, and what the padding tokens are."""

from __future__ import annotations

from forward_variants import SEQUENCES, in_batch

from matrix.subject import Pairs, Subject


def pairs(subject: Subject) -> Pairs:
    """A long and a short sequence, position ids given."""
    for side in ("left", "right"):
        for filler in (0, 7):
            got = in_batch(subject.model, SEQUENCES[:2], side=side, filler=filler)
            for expected, logits in zip(subject.expected[:2], got, strict=True):
                yield expected, subject.log_softmax(logits)
