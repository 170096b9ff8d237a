"""Axis: the number of threads, within a process."""

from __future__ import annotations

import torch
from forward_variants import SEQUENCES, alone

from matrix.subject import Pairs, Subject


def pairs(subject: Subject) -> Pairs:
    """Every sequence with one thread fewer or more."""
    expected = subject.expected
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        for reference, tokens in zip(expected, SEQUENCES, strict=True):
            yield reference, subject.log_softmax(alone(subject.model, tokens))
    finally:
        torch.set_num_threads(threads)
