"""Axis: the number of sequences in the batch, and a sequence's place among them."""

from __future__ import annotations

from forward_variants import SEQUENCES, in_batch

from matrix.subject import Pairs, Subject


def pairs(subject: Subject) -> Pairs:
    """Batches of 3, 8 and 32, turned so that each sequence stands in each place once."""
    for size in (3, 8):
        yield from _turned(subject, [(i, len(SEQUENCES[i])) for i in range(size)])
    # Beginnings of one to seven tokens: causality says that their rows are known.
    beginnings = [(i % 8, min(1 + 3 * i % 7, len(SEQUENCES[i % 8]))) for i in range(32)]
    yield from _turned(subject, beginnings)


def _turned(subject: Subject, group: list[tuple[int, int]]) -> Pairs:
    for turn in range(len(group)):
        order = group[turn:] + group[:turn]
        got = in_batch(subject.model, [SEQUENCES[i][:length] for i, length in order], side="left")
        for (i, length), logits in zip(order, got, strict=True):
            yield subject.expected[i][:length], subject.log_softmax(logits)
